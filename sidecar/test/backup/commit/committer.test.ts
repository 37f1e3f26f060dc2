import { expect, test } from "bun:test";
import { join } from "node:path";

import {
  Committer,
  type CommitResult,
  type CommitterOptions,
} from "../../../src/backup/commit/committer.ts";
import { decodeCommit, encodeCommit } from "../../../src/backup/format/codec.ts";
import { keys, type Commit } from "../../../src/backup/format/format.ts";
import { Index } from "../../../src/backup/index.ts";
import { Patience, type Reach } from "../../../src/backup/patience.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";
import type { Store } from "../../../src/store/store.ts";
import { drive } from "../../support/drive.ts";
import {
  FaultyStore,
  allOf,
  faultAt,
  flipBit,
  type FaultScript,
} from "../../support/faulty-store.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { changedFile, changedFolder, gone, sha256 } from "../../support/readings.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const BIG = "big ".repeat(20_000);
const HOUR = 3_600_000;
const never = new AbortController().signal;

interface BenchOptions extends Partial<Pick<CommitterOptions, "fence" | "at">> {
  readonly script?: FaultScript;
  readonly wrap?: (store: Store) => Store;
}

/** A committer on a strict store in memory, with fake time. */
function bench(options: BenchOptions = {}) {
  const dir = tempDir();
  const clock = new ManualClock();
  const memory = new MemoryStore(clock);
  const store = new FaultyStore(options.wrap?.(memory) ?? memory, options.script, clock);
  const reaches: Reach[] = [];
  const patience = new Patience({
    clock,
    random: () => 0.5,
    onChange: (reach) => reaches.push(reach),
  });
  const indexPath = join(dir.path, "index.sqlite");
  const index = new Index(indexPath);
  const common = { store, index, clock, patience, user: "user-1", fence: options.fence ?? "on" };
  const make = (machine = "machine-1", index = common.index): Committer =>
    new Committer({ ...common, index, machine, ...(options.at ? { at: options.at } : {}) });
  const committer = make();
  const commit = (batch: readonly Reading[], signal = never): Promise<CommitResult> =>
    drive(clock, committer.commit(batch, { signal }));
  return {
    clock,
    memory,
    store,
    patience,
    index,
    committer,
    commit,
    make,
    reaches,
    read: async (position: number) => decodeCommit(await memory.get(keys.commit(position))),
    puts: (key: string) =>
      store.steps.filter(
        (step) => step.operation === "put" && step.phase === "before" && step.key === key,
      ).length,
    [Symbol.dispose]() {
      index[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

/** A commit of another machine at `position`, as bytes. */
function foreign(position: number): Promise<Uint8Array> {
  const commit: Commit = {
    format: 1,
    position,
    id: "another-machines-id",
    user: "user-1",
    machine: "machine-2",
    time: 1,
    changed: 0,
    deletedCount: 0,
    bytes: 0,
    entries: [],
    deleted: [],
  };
  return encodeCommit(commit, new Map());
}

function key(position: number): string {
  return keys.commit(position);
}

test("a commit of small files is one put, and one list before the first", async () => {
  using t = bench();
  const result = await t.commit([changedFolder("a"), changedFile("a/b.md", "b"), gone("c")]);
  expect(result).toMatchObject({
    kind: "committed",
    again: [],
    header: { position: 1, changed: 2, deletedCount: 0, bytes: 1, user: "user-1" },
  });
  expect(t.memory.keys).toEqual([key(1)]);
  const { commit, members } = await t.read(1);
  expect(commit.deleted).toEqual([]);
  expect(Buffer.from(members.get("data/a/b.md") ?? []).toString()).toBe("b");
  expect(t.index.get("a/b.md")?.entry).toMatchObject({
    extents: [{ commit: 1, member: "data/a/b.md", offset: 0, length: 1 }],
  });
  await t.commit([changedFile("a/b.md", "b2")]);
  const asked = t.store.steps.filter(({ phase }) => phase === "before");
  expect(asked.map(({ operation }) => operation)).toEqual(["list", "put", "put"]);
  expect((await t.read(2)).commit.parent).toBe((await t.read(1)).commit.id);
});

test("the same content is sent once, within a batch and ever after", async () => {
  using t = bench();
  await t.commit([
    changedFile("a", "same"),
    changedFile("b", "same"),
    changedFile("c", BIG),
    changedFile("d", BIG),
  ]);
  expect(t.puts(keys.blob(sha256(BIG)))).toBe(1);
  expect([...(await t.read(1)).members.keys()]).toEqual(["data/a"]);
  await t.commit([changedFile("e", "same"), changedFile("f", BIG)]);
  expect(t.puts(keys.blob(sha256(BIG)))).toBe(1);
  const { commit, members } = await t.read(2);
  expect(members.size).toBe(0);
  expect(commit.bytes).toBe(0);
  expect(commit.entries).toMatchObject([
    { path: "e", extents: [{ commit: 1, member: "data/a" }] },
    { path: "f", extents: [{ blob: sha256(BIG) }] },
  ]);
});

test("an empty file has no extents and is there when the commit is unpacked", async () => {
  using t = bench();
  await t.commit([changedFile("empty", "")]);
  const { commit, members } = await t.read(1);
  expect(commit.entries).toMatchObject([{ path: "empty", size: 0, extents: [] }]);
  expect(members.get("data/empty")).toHaveLength(0);
});

test("nothing changed makes no commit, but an empty one can be asked for", async () => {
  using t = bench();
  expect(await t.commit([gone("never-there")])).toEqual({
    kind: "nothing",
    again: [],
    left: [],
    failures: [],
  });
  expect(t.store.steps).toEqual([]);
  const work = t.committer.commit([], { signal: never, allowEmpty: true });
  expect(await drive(t.clock, work)).toMatchObject({ kind: "committed", header: { position: 1 } });
});

test("a deleted folder is one path in the commit and counts all that was in it", async () => {
  using t = bench();
  await t.commit([changedFolder("a"), changedFile("a/b", "b"), changedFile("a/c", "c")]);
  await t.commit([gone("a/b"), gone("a"), gone("a/c")]);
  const { commit } = await t.read(2);
  expect(commit).toMatchObject({ deleted: ["a"], deletedCount: 3, changed: 0 });
  expect(t.index.totals().entries).toBe(0);
});

test("a folder that became a file takes along what was in it", async () => {
  using t = bench();
  await t.commit([changedFolder("a"), changedFile("a/b", "b")]);
  await t.commit([changedFile("a", "now a file")]);
  expect((await t.read(2)).commit.deleted).toEqual(["a"]);
  expect(t.index.get("a/b")).toBeUndefined();
  expect(t.index.get("a")?.entry.type).toBe("file");
});

test("nothing is committed below what the history still takes for a file", async () => {
  using t = bench();
  await t.commit([changedFile("a", "a file")]);
  expect(await t.commit([changedFile("a/b", "b")])).toMatchObject({
    kind: "nothing",
    again: ["a/b", "a"],
  });
  expect(await t.commit([changedFile("a/b", "b"), changedFolder("a")])).toMatchObject({
    kind: "committed",
    again: [],
  });
});

test("a reading that the index overtook is handed back", async () => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  const before = t.index.get("a");
  await t.commit([changedFile("a", "two")]);
  if (!before) throw new Error("not recorded");
  expect(await t.commit([{ kind: "same", item: before }])).toMatchObject({ again: ["a"] });
  const lost = changedFile("b", "content that was thought to be known");
  if (lost.kind !== "changed") throw new Error("not changed");
  expect(await t.commit([{ ...lost, content: undefined }])).toMatchObject({
    kind: "nothing",
    again: ["b"],
  });
});

test("a new stamp alone is recorded without a commit", async () => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  const item = t.index.get("a");
  if (!item) throw new Error("not recorded");
  expect(await t.commit([{ kind: "same", item: { ...item, stamp: "new" } }])).toMatchObject({
    kind: "nothing",
    again: [],
  });
  expect(t.index.get("a")?.stamp).toBe("new");
});

test("a file that changes while it is sent is handed back, and the rest goes on", async () => {
  using t = bench();
  let disposed = 0;
  const onDispose = (): void => void (disposed += 1);
  const result = await t.commit([
    changedFile("a", BIG, { sendsInstead: "else", onDispose }),
    changedFile("b", `${BIG}b`, { onDispose }),
    changedFile("c", "small"),
  ]);
  expect(result).toMatchObject({ kind: "committed", again: ["a"], header: { changed: 2 } });
  expect(t.index.get("a")).toBeUndefined();
  expect(t.memory.keys).toEqual([keys.blob(sha256(`${BIG}b`)), key(1)]);
  expect(disposed).toBe(2);
});

test("of two files with the same content the one that still has it is sent", async () => {
  using t = bench();
  const result = await t.commit([
    changedFile("a", BIG, { sendsInstead: "else" }),
    changedFile("b", BIG),
  ]);
  expect(result).toMatchObject({ kind: "committed", again: ["a"] });
  expect(t.index.get("b")?.entry).toMatchObject({ extents: [{ blob: sha256(BIG) }] });
});

test("a blob that a cut-off commit left behind is not sent again, a bad one is", async () => {
  using t = bench();
  await t.memory.put(keys.blob(sha256(BIG)), Buffer.from(BIG));
  await t.memory.put(keys.blob(sha256(`${BIG}2`)), Buffer.from("cut"));
  const result = await t.commit([changedFile("a", BIG), changedFile("b", `${BIG}2`)]);
  expect(result.kind).toBe("committed");
  expect(Buffer.from(await t.memory.get(keys.blob(sha256(`${BIG}2`)))).toString()).toBe(`${BIG}2`);
});

test.each([
  ["before it was written", "before"],
  ["after it was written", "after"],
] as const)("an answer lost %s makes one commit", async (_name, phase) => {
  const lost = { fail: "unavailable" } as const;
  using t = bench({ script: faultAt({ operation: "put", key: key(1), phase }, lost, 2) });
  const result = await t.commit([changedFile("a", "one")]);
  expect(result).toMatchObject({ kind: "committed", header: { position: 1 } });
  expect(t.memory.keys).toEqual([key(1)]);
  expect((await t.read(1)).commit.id).toBe(t.index.head()?.id ?? "");
  expect(t.reaches).toEqual([]);
});

test("`exists` on a number where nothing stands is asked again under the same number", async () => {
  const script = faultAt({ operation: "put", key: key(1), phase: "before" }, { fail: "exists" }, 3);
  using t = bench({ script });
  expect(await t.commit([changedFile("a", "one")])).toMatchObject({ header: { position: 1 } });
  expect(t.puts(key(1))).toBe(4);
});

test("another machine's commit under our number is the end, for good", async () => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  await t.memory.put(key(2), await foreign(2));
  const by = { position: 2, id: "another-machines-id", machine: "machine-2" };
  expect(await t.commit([changedFile("a", "two")])).toEqual({ kind: "fenced", by });
  await t.memory.delete([key(2)]);
  const asked = t.store.steps.length;
  expect(await t.commit([changedFile("a", "two")])).toEqual({ kind: "fenced", by });
  expect(t.store.steps.length).toBe(asked);
  expect(t.committer.fencedBy).toEqual(by);
  expect(t.index.head()?.position).toBe(1);
});

test("something unreadable under our number is another's", async () => {
  using t = bench();
  await t.memory.put(key(1), Buffer.from("no commit at all"));
  // The list before the first commit finds it already.
  expect(await t.commit([changedFile("a", "one")])).toMatchObject({
    kind: "fenced",
    by: { position: 1 },
  });
});

test("of two machines that race for a number exactly one wins", async () => {
  for (let round = 0; round < 20; round += 1) {
    using t = bench();
    using otherDir = tempDir();
    using otherIndex = new Index(join(otherDir.path, "index.sqlite"));
    const other = t.make("machine-2", otherIndex);
    const work = Promise.all([
      t.committer.commit([changedFile("a", "mine")], { signal: never }),
      other.commit([changedFile("a", "theirs")], { signal: never }),
    ]);
    const kinds = (await drive(t.clock, work)).map(({ kind }) => kind);
    expect(kinds.toSorted()).toEqual(["committed", "fenced"]);
  }
});

test("an earlier attempt that lands late is recorded as ours, and the batch goes after it", async () => {
  let land: () => void = () => undefined;
  const held = new Promise<undefined>((resolve) => {
    land = () => resolve(undefined);
  });
  let landed = false;
  using t = bench({
    // A request that is on its way does not hear that nobody waits for it any more.
    wrap: (store) => ({
      name: store.name,
      async put(key, body, options) {
        await store.put(key, body, { ifAbsent: options?.ifAbsent ?? false });
        landed = true;
      },
      get: (key, options) => store.get(key, options),
      stream: (key, options) => store.stream(key, options),
      head: (key, options) => store.head(key, options),
      list: (prefix, options) => store.list(prefix, options),
      delete: (all, options) => store.delete(all, options),
    }),
    script: async (step) => {
      if (step.operation === "put" && step.phase === "before" && step.countOfKey === 1) await held;
    },
  });
  const impatient = new AbortController();
  const first = t.committer.commit([changedFile("a", "first"), changedFile("b", "b")], {
    signal: impatient.signal,
  });
  first.catch(() => undefined);
  await until(() => t.puts(key(1)) === 1, "the first put is on its way");
  impatient.abort(new Error("no time left"));
  await expect(first).rejects.toThrow("no time left");
  land();
  await until(() => landed, "the late put landed");
  const result = await t.commit([changedFile("a", "second")]);
  expect(result).toMatchObject({ kind: "committed", header: { position: 2 } });
  expect((await t.read(1)).commit.entries).toHaveLength(2);
  // What only the first attempt said must be compared with the disk again.
  expect(t.index.get("b")).toMatchObject({ stamp: "" });
  expect((await t.read(2)).commit.parent).toBe((await t.read(1)).commit.id);
});

test("a restart after the put and before the record finds its own commit", async () => {
  class Killed extends Error {}
  let armed = true;
  using t = bench({
    at: (point) => {
      if (point === "before-record" && armed) throw new Killed();
    },
  });
  await expect(t.commit([changedFile("a", "one")])).rejects.toThrow(Killed);
  armed = false;
  const again = t.make();
  const work = again.commit([changedFile("a", "two")], { signal: never });
  expect(await drive(t.clock, work)).toMatchObject({
    kind: "committed",
    header: { position: 2 },
  });
  expect(t.memory.keys).toEqual([key(1), key(2)]);
});

test("an outage is waited out with the same bytes, told once, and told when it is over", async () => {
  using t = bench({
    script: faultAt({ operation: "put", phase: "before" }, { fail: "unavailable" }, 40),
  });
  const work = t.committer.commit([changedFile("a", "one")], { signal: never });
  expect(await drive(t.clock, work, { stepMs: 5_000, limitMs: HOUR })).toMatchObject({
    kind: "committed",
  });
  expect(t.reaches).toEqual(["unreachable", "ok"]);
  expect(t.puts(key(1))).toBe(41);
  // Waits double up to 30 s; with half of each taken, 40 of them last some nine minutes.
  expect(t.clock.monotonic()).toBeGreaterThan(8 * 60_000);
  expect(t.clock.monotonic()).toBeLessThan(15 * 60_000);
});

test("being throttled is waited out", async () => {
  using t = bench({ script: faultAt({ phase: "before" }, { fail: "throttled" }, 5) });
  expect(await t.commit([changedFile("a", BIG)])).toMatchObject({ kind: "committed" });
});

test("refused credentials are told at once and asked again rarely", async () => {
  using t = bench({
    script: faultAt({ operation: "put", phase: "before" }, { fail: "denied" }, 3),
  });
  expect(await t.commit([changedFile("a", "one")])).toMatchObject({ kind: "committed" });
  expect(t.reaches).toEqual(["denied", "ok"]);
  expect(t.clock.monotonic()).toBeGreaterThan(120_000);
});

test("a store that hangs is given up on and asked again; an abort ends the wait at once", async () => {
  const hang = { hang: true } as const;
  using t = bench({ script: faultAt({ operation: "put", phase: "before" }, hang, 1) });
  expect(await t.commit([changedFile("a", "one")])).toMatchObject({ kind: "committed" });
  t.store.script = faultAt({}, hang);
  const abort = new AbortController();
  const work = t.committer.commit([changedFile("a", "two")], { signal: abort.signal });
  work.catch(() => undefined);
  await until(() => t.puts(key(2)) === 1, "the put hangs");
  abort.abort(new Error("stopping"));
  await expect(work).rejects.toThrow("stopping");
});

test("a store without conditional puts is unfenced", async () => {
  using t = bench({ script: faultAt({ ifAbsent: true }, { fail: "unsupported" }) });
  expect(await t.commit([changedFile("a", "one"), changedFile("b", BIG)])).toEqual({
    kind: "unfenced",
  });
  expect(t.memory.keys).toEqual([keys.blob(sha256(BIG))]);
});

test("without the fence commits are made, and another's number is still respected", async () => {
  using t = bench({
    fence: "off",
    script: allOf(faultAt({ operation: "put", ifAbsent: true }, { fail: "unsupported" })),
  });
  expect(await t.commit([changedFile("a", "one")])).toMatchObject({ kind: "committed" });
  await t.memory.put(key(2), await foreign(2));
  expect(await t.commit([changedFile("a", "two")])).toMatchObject({ kind: "fenced" });
});

test.each([
  ["an hour after the last commit", async (clock: ManualClock) => clock.advance(HOUR + 1)],
  ["after the wall clock went ahead", async (clock: ManualClock) => clock.jump(2 * HOUR)],
  ["after the wall clock went back", async (clock: ManualClock) => clock.jump(-2 * HOUR)],
])("%s the numbers after ours are looked at first", async (_name, pass) => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  await pass(t.clock);
  // Another machine went on, and its first commits were removed since.
  await t.memory.put(key(7), await foreign(7));
  expect(await t.commit([changedFile("a", "two")])).toMatchObject({ kind: "fenced" });
  expect(t.puts(key(2))).toBe(0);
});

test("after a suspicion the numbers after ours are looked at once", async () => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  t.committer.suspect();
  await t.commit([changedFile("a", "two")]);
  await t.commit([changedFile("a", "three")]);
  expect(t.store.steps.filter(({ operation }) => operation === "list")).toHaveLength(4);
});

test("commit times grow even where the clock goes back", async () => {
  using t = bench();
  await t.commit([changedFile("a", "one")]);
  t.clock.jump(-60_000);
  await t.commit([changedFile("a", "two")]);
  expect((await t.read(2)).commit.time).toBe((await t.read(1)).commit.time + 1);
});

test("a store that is a folder works the same", async () => {
  using dir = tempDir();
  using t = bench();
  const folder = new DirectoryStore(join(dir.path, "store"));
  const committer = new Committer({
    store: folder,
    index: t.index,
    clock: t.clock,
    patience: t.patience,
    user: "user-1",
    machine: "machine-1",
    fence: "on",
  });
  await committer.commit([changedFile("a", "one"), changedFile("b", BIG)], { signal: never });
  await committer.commit([gone("a")], { signal: never });
  expect((await decodeCommit(await folder.get(key(2)))).commit.deleted).toEqual(["a"]);
  expect((await folder.get(keys.blob(sha256(BIG)))).length).toBe(BIG.length);
});

test("an error of the store that no wait can heal is thrown, and the contents are given back", async () => {
  using t = bench({ script: faultAt({ operation: "put" }, { fail: new Error("a bug") }) });
  let disposed = 0;
  const file = changedFile("a", BIG, { onDispose: () => void (disposed += 1) });
  expect(await t.commit([file])).toMatchObject({ kind: "nothing", again: ["a"] });
  expect(disposed).toBe(1);
  await expect(t.commit([changedFile("b", "b")])).rejects.toThrow("a bug");
});

test("its own commit is not taken for a stranger's where it comes back damaged", async () => {
  using t = bench({
    script: allOf(
      faultAt({ operation: "put", key: key(1), phase: "after" }, { fail: "unavailable" }, 1),
      faultAt({ operation: "get", key: key(1), phase: "after" }, { corrupt: flipBit }, 3),
    ),
  });
  const result = await t.commit([changedFile("a", "a")]);
  expect(result).toMatchObject({ kind: "committed", header: { position: 1 } });
  expect(t.committer.fencedBy).toBeUndefined();
});
