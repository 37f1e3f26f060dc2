import { expect, test } from "bun:test";

import { encodeCommit } from "../../../src/backup/format/codec.ts";
import { keys } from "../../../src/backup/format/format.ts";
import { foldTree } from "../../../src/backup/history/history.ts";
import { FaultyStore, faultAt } from "../../support/faulty-store.ts";
import { DAY, keptHistory } from "../../support/kept-history.ts";
import { sha256 } from "../../support/readings.ts";

const BIG = "big ".repeat(20_000);
const OLD = `old ${BIG}`;

/** A history in which the blob of OLD, and the first commits, are needed by nothing that is kept. */
async function doomed(options: Parameters<typeof keptHistory>[0] = {}) {
  const t = keptHistory(options);
  await t.start();
  t.write("workspace/note", "1");
  t.write("workspace/old", OLD);
  await t.commit();
  t.write("workspace/note", "2");
  await t.commit();
  t.remove("workspace/old");
  t.write("workspace/other", BIG);
  await t.day();
  for (let n = 0; n < 12; n += 1) {
    t.write("workspace/note", `day ${n}`);
    await t.day();
    // All before is one week by then, of which the last checkpoint stays.
    if (n === 2) t.clock.jump(31 * DAY);
  }
  return t;
}

const blobOf = (content: string): string => keys.blob(sha256(content));

test("removal takes what nothing kept needs, and nothing else", async () => {
  await using t = await doomed();
  const before = t.commits();
  expect(t.blobs()).toContain(blobOf(OLD));
  const result = await t.night();
  expect(result.stopped).toBeUndefined();
  expect(result.missing.count).toBe(0);
  expect(result.removed).toBe(result.objects);
  expect(t.blobs()).toEqual([blobOf(BIG)]);
  expect(t.index.locate(sha256(OLD))).toBeUndefined();
  expect(t.commits().length).toBeLessThan(before.length);
  for (const position of t.checkpoints())
    expect(await t.contentOf(position)).toEqual(new Map(t.trees.get(position)));
  const floor = result.keptFrom ?? 0;
  for (const [position, files] of t.trees)
    if (position >= floor) expect(await t.contentOf(position)).toEqual(new Map(files));
  // What went is not looked for again, and no commit is made for nothing.
  const head = t.index.head()?.position;
  expect(await t.night()).toMatchObject({ removed: 0, objects: 0 });
  expect(t.index.head()?.position).toBe(head);
});

test("months of nights leave every kept position whole", async () => {
  await using t = keptHistory();
  await t.start();
  for (let n = 0; n < 100; n += 1) {
    t.write("workspace/note", `note of day ${n}`);
    t.write(`workspace/${n % 7}.bin`, `${n % 5} ${BIG}`);
    t.write(`workspace/daily/${n}.md`, `of day ${n}`);
    if (n >= 2) t.remove(`workspace/daily/${n - 2}.md`);
    if (n === 40) {
      const pin = {
        format: 1,
        position: await t.commit(),
        reason: "test",
        user: "u",
        machine: "m",
        time: 1,
      };
      await t.memory.put("pins/forty", Buffer.from(JSON.stringify(pin)));
    }
    await t.day();
    if (n % 4 === 3) expect((await t.night()).missing.count).toBe(0);
  }
  const result = await t.night();
  const pinned =
    [...t.trees.keys()].find(
      (position) => t.trees.get(position)?.get("workspace/note") === "note of day 40",
    ) ?? 0;
  const kept = t.checkpoints();
  // A week of each, 23 further days, then weeks.
  expect(kept.length).toBeGreaterThan(35);
  expect(kept.length).toBeLessThan(52);
  for (const position of [...kept, pinned])
    expect(await t.contentOf(position)).toEqual(new Map(t.trees.get(position)));
  for (const [position, files] of t.trees)
    if (position >= (result.keptFrom ?? 0))
      expect(await t.contentOf(position)).toEqual(new Map(files));
  expect(t.commits().length).toBeLessThan((t.index.head()?.position ?? 0) * 0.75);
}, 60_000);

test("removal that is cut off anywhere leaves a whole history, and the next one goes on", async () => {
  const kept = async (t: Awaited<ReturnType<typeof doomed>>): Promise<void> => {
    for (const position of [...t.checkpoints(), t.index.head()?.position ?? 0])
      await t.contentOf(position);
  };
  let steps = 0;
  for (let cut = 1; cut === 1 || cut < steps; cut += 3) {
    await using t = await doomed();
    const ending = new AbortController();
    const before = t.store.steps.length;
    t.store.script = () => {
      if (t.store.steps.length - before < cut) return undefined;
      ending.abort(new Error("the machine was killed"));
      return { fail: new Error("the machine was killed") };
    };
    await expect(t.night({ signal: ending.signal })).rejects.toThrow("the machine was killed");
    t.store.script = () => undefined;
    await kept(t);
    const from = t.store.steps.length;
    await t.night();
    // As many as a whole night has, or more.
    steps = Math.max(steps, t.store.steps.length - from);
    await kept(t);
    expect(t.blobs()).toEqual([blobOf(BIG)]);
  }
  expect(steps).toBeGreaterThan(30);
}, 60_000);

test("content that comes back while removal runs is sent anew, or kept", async () => {
  await using t = await doomed();
  // After the plan was made, and before anything of it was done.
  let written = false;
  t.store.script = async ({ operation, key, phase }) => {
    if (written || operation !== "put" || !key.startsWith(keys.commits) || phase !== "after")
      return;
    written = true;
    t.write("workspace/again", OLD);
    void t.replicator.flush(new AbortController().signal).catch(() => undefined);
  };
  await t.night();
  t.store.script = () => undefined;
  const position = await t.commit();
  expect(await t.contentOf(position)).toEqual(new Map(t.files));
  expect(t.blobs()).toContain(blobOf(OLD));
});

test("content that comes back between two batches stays", async () => {
  await using t = await doomed();
  let flushed: Promise<unknown> | undefined;
  t.store.script = ({ operation, phase, count }) => {
    if (operation !== "delete" || phase !== "after" || count !== 1) return;
    t.write("workspace/again", OLD);
    flushed = t.replicator.flush(new AbortController().signal);
  };
  await t.night();
  await flushed;
  const position = await t.commit();
  expect(await t.contentOf(position)).toEqual(new Map(t.files));
});

test("another machine's commit between two batches stops removal", async () => {
  await using t = await doomed();
  t.store.script = async ({ operation, phase, count }) => {
    if (operation !== "delete" || phase !== "after" || count !== 1) return;
    const position = (t.index.head()?.position ?? 0) + 1;
    const commit = {
      format: 1,
      position,
      id: "another-machine",
      user: "user-1",
      machine: "machine-2",
      time: t.clock.now(),
      changed: 0,
      deletedCount: 0,
      bytes: 0,
      entries: [],
      deleted: [],
    };
    await t.memory.put(keys.commit(position), await encodeCommit(commit, new Map()));
  };
  const result = await t.night();
  expect(result).toMatchObject({ stopped: "overtaken" });
  expect(
    t.store.steps.filter(({ operation, phase }) => operation === "delete" && phase === "before"),
  ).toHaveLength(1);
  expect(t.blobs()).toContain(blobOf(OLD));
});

test("a machine that does not own the history removes nothing", async () => {
  await using t = await doomed();
  const position = (t.index.head()?.position ?? 0) + 1;
  const theirs = await t.memory.get(keys.commit(position - 1));
  await t.memory.put(keys.commit(position), theirs);
  expect(await t.night()).toMatchObject({ removed: 0, stopped: "not_ours" });
  expect(t.types()).toContain("fenced");
  expect(await t.night()).toMatchObject({ removed: 0, stopped: "not_ours" });
  expect(t.store.steps.some(({ operation }) => operation === "delete")).toBe(false);
});

test("where nothing keeps two machines apart nothing is removed", async () => {
  await using t = await doomed({ fence: "off" });
  expect(await t.night()).toMatchObject({ removed: 0, stopped: "not_ours" });
  expect(t.blobs()).toContain(blobOf(OLD));
});

test("a delete whose answer is lost is made sure of before commits go on", async () => {
  await using t = await doomed();
  t.store.script = faultAt({ operation: "delete", phase: "after" }, { fail: "unavailable" }, 2);
  const result = await t.night();
  expect(result.removed).toBe(result.objects);
  expect(t.blobs()).toEqual([blobOf(BIG)]);
});

test("a reader that meets what is being removed gets what is kept, or hears that there is none", async () => {
  await using t = await doomed();
  const [first = 0] = t.checkpoints();
  let nights = 0;
  const reader = new FaultyStore(t.memory, async ({ operation, phase }) => {
    // It has made its plan, and is about to read.
    if (operation !== "get" || phase !== "before" || nights > 0) return;
    nights += 1;
    await t.night();
  });
  await expect(foldTree(reader, { at: first })).rejects.toMatchObject({ kind: "unknown_position" });
  expect(nights).toBe(1);
  expect((await foldTree(reader))?.head.position).toBe(t.index.head()?.position);
});

test("nothing younger than a day is removed", async () => {
  await using t = await doomed();
  const stray = keys.blob("f".repeat(64));
  await t.memory.put(stray, Buffer.from("of a commit to come"));
  t.clock.jump(DAY / 2);
  await t.night();
  expect(t.blobs()).toContain(stray);
  t.clock.jump(DAY);
  await t.night();
  expect(t.blobs()).not.toContain(stray);
});
