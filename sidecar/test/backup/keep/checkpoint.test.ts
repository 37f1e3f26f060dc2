import { expect, test } from "bun:test";
import { join } from "node:path";

import { keys, type Entry } from "../../../src/backup/format/format.ts";
import { decodeManifest } from "../../../src/backup/format/manifest.ts";
import { Index } from "../../../src/backup/index.ts";
import { writeCheckpoint } from "../../../src/backup/keep/checkpoint.ts";
import { Checkpoints } from "../../../src/backup/keep/checkpoints.ts";
import { capturedLog } from "../../support/captured-log.ts";
import { FaultyStore, faultAt, flipBit, type FaultScript } from "../../support/faulty-store.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const never = new AbortController().signal;
const DAY = 86_400_000;

function bench(script?: FaultScript) {
  const dir = tempDir();
  const clock = new ManualClock();
  const path = join(dir.path, "index.sqlite");
  const index = new Index(path);
  const memory = new MemoryStore(clock);
  const store = new FaultyStore(memory, script, clock);
  const log = capturedLog();
  const snapshot = (): Index => new Index(path, { readonly: true }).freeze();
  const options = { store, index, snapshot, clock, log, user: "user-1", machine: "machine-1" };
  let position = 0;
  return {
    clock,
    index,
    memory,
    store,
    log,
    options,
    checkpoints: new Checkpoints(options),
    /** Records a commit with these folders. */
    commit(...paths: string[]) {
      position += 1;
      const entries = paths.map((path): Entry => ({
        type: "directory",
        path,
        mode: 0o755,
        mtimeNs: "1",
      }));
      index.record(
        {
          format: 1,
          position,
          id: `the-id-of-${position}`,
          user: "user-1",
          machine: "machine-1",
          time: clock.now() + position,
          changed: entries.length,
          deletedCount: 0,
          bytes: 0,
        },
        { entries: entries.map((entry) => ({ entry, stamp: "", racy: false })), deleted: [] },
      );
    },
    [Symbol.dispose]() {
      index[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

test("a checkpoint is the whole tree, parents first, with the headers since the last one", async () => {
  using t = bench();
  t.commit("b", "a");
  t.commit("a/c", "a.d");
  await writeCheckpoint(t.options, never);
  const { header, entries } = await decodeManifest(await t.memory.get(keys.manifest(2)));
  expect(header).toMatchObject({ position: 2, id: "the-id-of-2", entryCount: 4 });
  expect(header.commits.map(({ position }) => position)).toEqual([1, 2]);
  expect((await Array.fromAsync(entries)).map(({ path }) => path)).toEqual([
    "a",
    "a.d",
    "b",
    "a/c",
  ]);
  expect(t.index.checkpoint()).toMatchObject({ position: 2 });
  t.commit("e");
  await writeCheckpoint(t.options, never);
  const second = await decodeManifest(await t.memory.get(keys.manifest(3)));
  expect(second.header.commits.map(({ position }) => position)).toEqual([3]);
});

test("what is recorded while a checkpoint is written is not in it", async () => {
  using t = bench(async (step) => {
    if (step.operation === "put" && step.phase === "before") t.commit("late");
  });
  t.commit("early");
  await writeCheckpoint(t.options, never);
  const { entries } = await decodeManifest(await t.memory.get(keys.manifest(1)));
  expect((await Array.fromAsync(entries)).map(({ path }) => path)).toEqual(["early"]);
  // Its header is of a commit after the checkpoint, and stays.
  expect(t.index.headersAfter(0).map(({ position }) => position)).toEqual([2]);
});

test("a checkpoint that a cut-off process wrote is taken over", async () => {
  using t = bench();
  t.commit("a");
  t.store.script = faultAt({ operation: "get" }, { fail: "unavailable" }, 1);
  await expect(writeCheckpoint(t.options, never)).rejects.toThrow("unavailable");
  expect(t.index.checkpoint()).toBeUndefined();
  await t.clock.advance(2_000);
  await writeCheckpoint(t.options, never);
  expect(t.index.checkpoint()).toMatchObject({ position: 1 });
});

test.each([
  ["damaged on its way", { corrupt: flipBit }],
  ["cut", { corrupt: (bytes: Uint8Array) => bytes.subarray(0, bytes.length >> 1) }],
])("a checkpoint that comes back %s is not remembered", async (_name, fault) => {
  using t = bench(faultAt({ operation: "get", phase: "after" }, fault));
  t.commit("a");
  await expect(writeCheckpoint(t.options, never)).rejects.toMatchObject({ kind: "corrupt" });
  expect(t.index.checkpoint()).toBeUndefined();
});

test("a checkpoint is due after the first upload, 500 commits, 64 MiB or a day", async () => {
  using t = bench();
  const due = async (commit: { bytes: number; settled: boolean }): Promise<boolean> => {
    const before = t.index.checkpoint()?.position;
    t.checkpoints.consider(commit, never);
    await t.checkpoints.ended();
    return t.index.checkpoint()?.position !== before;
  };
  t.commit("a");
  expect(await due({ bytes: 1, settled: false })).toBe(false);
  expect(await due({ bytes: 1, settled: true })).toBe(true);
  t.commit("b");
  expect(await due({ bytes: 1, settled: true })).toBe(false);
  expect(await due({ bytes: 64 * 1024 * 1024, settled: false })).toBe(true);
  for (let n = 0; n < 499; n += 1) t.commit("c");
  expect(await due({ bytes: 1, settled: true })).toBe(false);
  t.commit("c");
  expect(await due({ bytes: 1, settled: true })).toBe(true);
  t.commit("d");
  await t.clock.advance(DAY + 1);
  expect(await due({ bytes: 1, settled: true })).toBe(true);
  expect(await due({ bytes: 1, settled: true })).toBe(false);
});

test("a checkpoint that fails is told once and tried again after a while", async () => {
  using t = bench(faultAt({ operation: "put" }, { fail: "denied" }));
  t.commit("a");
  for (let round = 0; round < 5; round += 1) {
    t.checkpoints.consider({ bytes: 1, settled: true }, never);
    await t.checkpoints.ended();
    await t.clock.advance(60_000);
  }
  const warnings = (): number => t.log.lines.filter(({ level }) => level === "warn").length;
  expect(warnings()).toBe(1);
  t.store.script = () => undefined;
  await t.clock.advance(5 * 60_000);
  t.checkpoints.consider({ bytes: 1, settled: true }, never);
  await until(() => t.index.checkpoint() !== undefined, "the checkpoint is written");
  expect(warnings()).toBe(1);
});

test("the sizes of commits count on after a restart", async () => {
  using t = bench();
  const MIB = 1024 * 1024;
  t.commit("a");
  await writeCheckpoint(t.options, never);
  t.commit("b");
  t.checkpoints.consider({ bytes: 40 * MIB, settled: true }, never);
  await t.checkpoints.ended();
  expect(t.index.checkpoint()?.position).toBe(1);
  const restarted = new Checkpoints(t.options);
  t.commit("c");
  restarted.consider({ bytes: 25 * MIB, settled: true }, never);
  await restarted.ended();
  expect(t.index.checkpoint()?.position).toBe(3);
  t.commit("d");
  restarted.consider({ bytes: 25 * MIB, settled: true }, never);
  await restarted.ended();
  expect(t.index.checkpoint()?.position).toBe(3);
});

test("what is to be done before a checkpoint is done once for each", async () => {
  using t = bench();
  let due = 0;
  const checkpoints = new Checkpoints({ ...t.options, onDue: () => (due += 1) });
  t.commit("a");
  for (let round = 0; round < 3; round += 1) {
    checkpoints.consider({ bytes: 1, settled: true }, never);
    await checkpoints.ended();
  }
  expect(due).toBe(1);
});
