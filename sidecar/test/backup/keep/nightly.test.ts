import { expect, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { ReplicatorEvent } from "../../../src/backup/commit/replicator-status.ts";
import { keys } from "../../../src/backup/format/format.ts";
import { Nightly } from "../../../src/backup/keep/nightly.ts";
import { readSample } from "../../../src/backup/keep/sample.ts";
import { nextNightMs, timeOfDayMs } from "../../../src/backup/keep/schedule.ts";
import { writeMarker } from "../../../src/volume/marker.ts";
import { drive } from "../../support/drive.ts";
import { flipBit } from "../../support/faulty-store.ts";
import { DAY, keptHistory } from "../../support/kept-history.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { sha256 } from "../../support/readings.ts";

const never = new AbortController().signal;
const BIG = "big ".repeat(20_000);

async function bench(options: Parameters<typeof keptHistory>[0] = {}) {
  const t = keptHistory(options);
  await t.start();
  const events: ReplicatorEvent[] = [];
  const state = { is: "idle" as "idle" | "busy" | "away" };
  const { store, index, snapshot, replicator: writer, root, clock, log } = t;
  const nightly = new Nightly({
    store,
    index,
    snapshot,
    writer,
    isBusy: () => state.is,
    root,
    clock,
    log,
    machine: "machine-1",
    onEvent: (event) => events.push(event),
  });
  return { ...t, nightly, told: events, state, once: () => drive(clock, nightly.once(never)) };
}

test("each machine has its own time of day, and every day one", () => {
  const now = Date.UTC(2026, 10, 20, 12);
  expect(timeOfDayMs("machine-1")).not.toBe(timeOfDayMs("machine-2"));
  for (const last of [now, now + 1, now + DAY / 2, now + timeOfDayMs("machine-1")]) {
    const next = nextNightMs(last, "machine-1");
    expect(next).toBeGreaterThan(last);
    expect(next - last).toBeLessThanOrEqual(DAY);
    expect(next % DAY).toBe(timeOfDayMs("machine-1"));
    expect(nextNightMs(next, "machine-1")).toBe(next + DAY);
  }
});

test("a night finds everything well, and status says when", async () => {
  await using t = await bench();
  t.write("workspace/big", BIG);
  await t.day();
  expect(t.nightly.status()).toEqual({});
  await t.once();
  expect(t.nightly.status()).toMatchObject({ lastVerifyResult: "ok" });
  expect(t.told).toEqual([]);
});

test("a night removes what is over, and tells", async () => {
  await using t = await bench();
  t.write("workspace/note", "first");
  await t.commit();
  for (let n = 0; n < 10; n += 1) {
    t.write("workspace/note", `day ${n}`);
    await t.day();
    t.write("workspace/note", `later on day ${n}`);
    await t.commit();
  }
  await t.once();
  expect(t.told.map(({ type }) => type)).toEqual(["removed"]);
  const { lastRemoval } = t.nightly.status();
  expect(lastRemoval?.objects).toBeGreaterThan(0);
  expect(lastRemoval?.bytes).toBeGreaterThan(0);
});

test.each([
  ["damaged", "repaired"],
  ["missing", "repaired"],
  ["damaged and not on the disk any more", "failed"],
] as const)("a blob that is %s is found: %s", async (kind, result) => {
  await using t = await bench();
  t.write("workspace/big", BIG);
  await t.day();
  for (let n = 0; n < 9; n += 1) {
    t.write("workspace/note", `day ${n}`);
    await t.day();
  }
  const key = keys.blob(sha256(BIG));
  if (kind === "missing") await t.memory.delete([key]);
  else t.memory.tamper(key, flipBit);
  // As the index has it, but not any more as the disk does.
  if (kind.includes("not on the disk")) writeFileSync(join(t.volume, "workspace/big"), "small");
  await t.clock.advance(2_000);
  await t.once();
  expect(t.told.filter(({ type }) => type === "verify_failed")).toHaveLength(1);
  expect(t.nightly.status()).toMatchObject({ lastVerifyResult: result });
  if (result === "failed") return;
  expect(Buffer.from(await t.memory.get(key)).toString()).toBe(BIG);
  await t.once();
  expect(t.nightly.status()).toMatchObject({ lastVerifyResult: "ok" });
});

test("in time every blob is read back, a bounded number of bytes at a time", async () => {
  const clock = new ManualClock();
  const store = new MemoryStore(clock);
  const hashes: string[] = [];
  for (let n = 0; n < 45; n += 1) {
    const bytes = Buffer.from(`blob ${n}`);
    hashes.push(sha256(bytes));
    await store.put(keys.blob(sha256(bytes)), bytes);
  }
  const last = hashes.toSorted().at(-1) ?? "";
  store.tamper(keys.blob(last), flipBit);
  const sizes: number[] = [];
  const bad: string[] = [];
  let after = "";
  for (let night = 0; night < 3; night += 1) {
    const sample = await readSample({ store, after, clock, signal: never });
    sizes.push(sample.blobs);
    bad.push(...sample.bad);
    after = sample.next;
  }
  expect(sizes).toEqual([20, 20, 5]);
  expect(after).toBe("");
  expect(bad).toEqual([last]);
});

test("what a restore moved aside goes after a week", async () => {
  await using t = await bench();
  t.write("workspace/a", "a");
  await t.day();
  writeMarker(t.root, { user: "user-1", state: "ready", position: 1 });
  const folder = (age: number): string =>
    join(t.volume, ".sidecar", `replaced-${t.clock.now() - age * DAY}`);
  const [old, young] = [folder(8), folder(6)];
  for (const path of [old, young]) {
    mkdirSync(join(path, "workspace"), { recursive: true });
    writeFileSync(join(path, "workspace/a"), "a");
  }
  await t.once();
  expect([existsSync(old), existsSync(young)]).toEqual([false, true]);
});

test("a step that fails is told in the log and holds up no other", async () => {
  await using t = await bench();
  t.write("workspace/big", BIG);
  await t.day();
  await t.memory.put("pins/broken", Buffer.from("no pin"));
  await t.once();
  const warnings = t.log.lines.filter(({ level }) => level === "warn");
  expect(warnings).toHaveLength(1);
  expect(t.nightly.status()).toMatchObject({ lastVerifyResult: "ok" });
});

test("nights come once a day, when nothing else is pending", async () => {
  await using t = await bench();
  t.write("workspace/big", BIG);
  await t.day();
  const ending = new AbortController();
  const running = t.nightly.run(ending.signal);
  const verifiedAt = (): number => Date.parse(t.nightly.status().lastVerifiedAt ?? "");
  const reach = async (condition: () => boolean): Promise<boolean> => {
    for (let step = 0; step < 20 && !condition(); step += 1) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      await t.clock.advance(61_000);
    }
    return condition();
  };
  await t.clock.advance(6 * 60_000);
  t.clock.jump(DAY + 60_000);
  t.state.is = "busy";
  expect(await reach(() => !Number.isNaN(verifiedAt()))).toBe(false);
  t.state.is = "idle";
  expect(await reach(() => !Number.isNaN(verifiedAt()))).toBe(true);
  const first = verifiedAt();
  expect(await reach(() => verifiedAt() > first)).toBe(false);
  t.clock.jump(DAY);
  expect(await reach(() => verifiedAt() > first)).toBe(true);
  ending.abort(new Error("the test is over"));
  await running;
});
