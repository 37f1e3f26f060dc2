import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";

import type { BootEvent, BootStatus } from "../../../src/backup/boot/boot-outcome.ts";
import {
  bootVolume,
  catchUp,
  finishFresh,
  type BootContext,
} from "../../../src/backup/boot/boot.ts";
import { keys } from "../../../src/backup/format/format.ts";
import { Index } from "../../../src/backup/index.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { scan, type ScanBatch } from "../../../src/backup/notice/scan.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import type { Store } from "../../../src/store/store.ts";
import { readMarker, whyNotReady, writeMarker } from "../../../src/volume/marker.ts";
import { Root } from "../../../src/volume/root.ts";
import { drive } from "../../support/drive.ts";
import { FaultyStore, faultAt, flipBit, type FaultScript } from "../../support/faulty-store.ts";
import { HistoryWriter } from "../../support/history.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { pseudoRandom } from "../../support/odd-tree.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";
import { until } from "../../support/until.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

const OURS = { skip: [".sidecar", "lost+found"] };
const AWAY: FaultScript = () => ({ fail: "unavailable" });

/** A volume, and what booting it says. */
function machine(store: Store | undefined, more: Partial<BootContext> = {}) {
  const dir = tempDir();
  const root = new Root(dir.path);
  const events: BootEvent[] = [];
  const statuses: BootStatus[] = [];
  const context: BootContext = {
    root,
    user: "me",
    machine: "m1",
    store,
    clock: systemClock,
    random: () => 0,
    treeEqualsIndex: async (index) => isEmpty(changes(root, index)),
    onEvent: (event) => events.push(event),
    onStatus: (status) => statuses.push(status),
    ...more,
  };
  const opened: Index[] = [];
  return {
    path: dir.path,
    root,
    context,
    events,
    statuses,
    boot: async (extra: Partial<BootContext> = {}, signal = new AbortController().signal) => {
      const outcome = await bootVolume({ ...context, ...extra }, signal);
      if (outcome.state === "ready" && outcome.index) opened.push(outcome.index);
      return outcome;
    },
    /** What a scan would read of this volume. */
    changes: (index = opened.at(-1)) => (index ? changes(root, index) : undefined),
    close: () => opened.pop()?.[Symbol.dispose](),
    [Symbol.dispose]() {
      for (const index of opened) index[Symbol.dispose]();
      root[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

function changes(root: Root, index: Index): ScanBatch {
  const changed: string[] = [];
  const gone: string[] = [];
  const onBatch = (batch: ScanBatch): void => {
    changed.push(...batch.changed);
    gone.push(...batch.gone);
  };
  scan(root, { index, ignore: createIgnore(), clock: systemClock, onBatch });
  return { changed: changed.sort(), gone: gone.sort() };
}

function isEmpty({ changed, gone }: ScanBatch): boolean {
  return changed.length + gone.length === 0;
}

/** Overwrites the first page of a table, or of an index of one. */
function damagePage(path: string, name: string): void {
  let page = 0;
  {
    using database = new Database(path);
    const row = database
      .query<{ rootpage: number }, [string]>("SELECT rootpage FROM sqlite_schema WHERE name = ?")
      .get(name);
    page = row?.rootpage ?? 0;
  }
  const bytes = readFileSync(path);
  bytes.fill(0xa5, (page - 1) * 4096, page * 4096);
  writeFileSync(path, bytes);
}

/** A tree of some files in the places of a real volume, and a history of it. */
async function committed(store: Store, machine = "m1") {
  const tree = tempDir();
  for (const folder of ["workspace/notes", "openclaw", "home"]) {
    mkdirSync(`${tree.path}/${folder}`, { recursive: true });
  }
  writeFileSync(`${tree.path}/workspace/notes/a.md`, "a");
  writeFileSync(`${tree.path}/openclaw/big`, pseudoRandom(100_000));
  symlinkSync("a.md", `${tree.path}/workspace/notes/link`);
  const writer = new HistoryWriter(store, { machine });
  await writer.commitTree(tree.path);
  const write = (path: string, text: string): void => writeFileSync(`${tree.path}/${path}`, text);
  return Object.assign(tree, { writer, write, commit: () => writer.commitTree(tree.path) });
}

test("an empty volume and an empty store are a new machine", async () => {
  using one = machine(new MemoryStore());
  const outcome = await one.boot();
  expect(outcome).toMatchObject({ state: "ready", position: 0, fresh: true, settled: true });
  expect(whyNotReady(one.root, "me")).toBeUndefined();
  one.close();
  // Until its first files are there it stays one.
  expect(await one.boot()).toMatchObject({ state: "ready", fresh: true });
  one.close();
  finishFresh(one.root);
  expect(await one.boot()).toMatchObject({ state: "ready", fresh: false });
  expect(readMarker(one.root)).toEqual({
    kind: "ok",
    marker: { version: 1, user: "me", state: "ready", position: 0 },
  });
});

test("an empty volume with a past is restored, and the first scan finds nothing to send", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  mkdirSync(`${one.path}/lost+found`);
  const outcome = await one.boot();
  expect(outcome).toMatchObject({ state: "ready", position: 1, fresh: false, unrestored: [] });
  expect(describeTree(one.path, OURS)).toEqual(describeTree(tree.path));
  expect(one.changes()).toEqual({ changed: [], gone: [] });
  expect(one.events).toMatchObject([{ type: "restored", details: { position: 1, files: 2 } }]);
  expect(one.statuses.map(({ state }) => state)).toEqual(["deciding", "restoring"]);
  one.close();
  expect(await one.boot()).toMatchObject({ state: "ready", position: 1, fresh: false });
});

test("what could not be restored is not a deletion to the next scan, at this boot and the next", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  const blob = store.keys.find((key) => key.startsWith("blobs/")) ?? "";
  await store.delete([blob]);
  using one = machine(store);
  const paths = { unrestored: [{ path: "openclaw/big" }] };
  expect(await one.boot()).toMatchObject({ state: "ready", ...paths });
  expect(one.changes()).toEqual({ changed: [], gone: [] });
  one.close();
  expect(await one.boot()).toMatchObject({ state: "ready", ...paths });
  // Once something is there again, that counts.
  writeFileSync(`${one.path}/openclaw/big`, "new");
  expect(one.changes()?.changed).toEqual(["openclaw", "openclaw/big"]);
  expect(existsSync(`${tree.path}/openclaw/big`)).toBe(true);
});

test("an empty volume waits for a store that is away, and says so", async () => {
  const clock = new ManualClock();
  const store = new FaultyStore(new MemoryStore(clock), AWAY);
  using tree = await committed(new MemoryStore());
  using one = machine(store, { clock, random: () => 0.5 });
  const outcome = one.boot();
  await until(() => one.statuses.some(({ state }) => state === "waiting"), "the boot to wait");
  expect(readdirSync(one.path)).toEqual([]);
  for (let round = 0; round < 5; round += 1) await clock.advance(60_000);
  expect(readdirSync(one.path)).toEqual([]);
  store.script = () => undefined;
  await new HistoryWriter(store).commitTree(tree.path);
  await until(async () => {
    await clock.advance(5_000);
    return one.statuses.some(({ state }) => state === "restoring");
  }, "the restore to begin");
  expect(await outcome).toMatchObject({ state: "ready", position: 1 });
  expect(describeTree(one.path, OURS)).toEqual(describeTree(tree.path));
});

test("a boot that is stopped while it waits has changed nothing", async () => {
  using one = machine(new FaultyStore(new MemoryStore(), AWAY), { random: () => 0.9 });
  const stop = new AbortController();
  const outcome = one.boot({}, stop.signal);
  await until(() => one.statuses.some(({ state }) => state === "waiting"), "the boot to wait");
  stop.abort(new Error("SIGTERM"));
  expect(await outcome).toMatchObject({ state: "waiting" });
  expect(readdirSync(one.path)).toEqual([]);
});

test("a restore that meets an outage goes on when it is over", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  const faulty = new FaultyStore(store, ({ operation, key, countOfKey }) =>
    operation === "get" && key.startsWith("blobs/") && countOfKey < 4
      ? { fail: "unavailable" }
      : undefined,
  );
  using one = machine(faulty);
  expect(await one.boot()).toMatchObject({ state: "ready", position: 1, unrestored: [] });
  expect(describeTree(one.path, OURS)).toEqual(describeTree(tree.path));
});

test("files without a marker are adopted, unless there is a past", async () => {
  using one = machine(new MemoryStore());
  mkdirSync(`${one.path}/workspace`);
  expect(await one.boot()).toMatchObject({ state: "ready", position: 0, fresh: false });
  expect(one.changes()?.changed).toEqual(["workspace"]);

  const store = new MemoryStore();
  using tree = await committed(store);
  using two = machine(store);
  writeFileSync(`${two.path}/of-somebody`, "?");
  expect(await two.boot()).toMatchObject({ state: "halted", kind: "diverged" });
  expect(two.events).toMatchObject([{ type: "diverged", details: { reason: "unknown_files" } }]);
  expect(readdirSync(two.path)).toEqual(["of-somebody"]);
  expect(existsSync(tree.path)).toBe(true);
});

test("a commit of ours that was not recorded any more is recorded", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  const outcome = await one.boot();
  if (outcome.state !== "ready") throw new Error(outcome.message);
  tree.write("workspace/notes/b.md", "b");
  const { id } = await tree.commit();
  outcome.index?.addAttempt(2, "another-try");
  outcome.index?.addAttempt(2, id);
  writeFileSync(`${one.path}/workspace/notes/b.md`, "b");
  one.close();
  const next = await one.boot();
  expect(next).toMatchObject({ state: "ready", position: 2, settled: true });
  if (next.state === "ready") expect(next.index?.get("workspace/notes/b.md")?.stamp).toBe("");
});

test("an old copy without changes of its own is brought forward", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  tree.write("workspace/notes/a.md", "by others");
  await tree.commit();
  tree.write("home/later", "by others too");
  await tree.commit();
  expect(await one.boot()).toMatchObject({ state: "ready", position: 3, settled: true });
  expect(describeTree(one.path, OURS)).toEqual(describeTree(tree.path));
  expect(one.changes()).toEqual({ changed: [], gone: [] });
});

test("an old copy with changes of its own is left alone", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  tree.write("workspace/notes/a.md", "by others");
  await tree.commit();
  writeFileSync(`${one.path}/workspace/mine`, "mine");
  const before = describeTree(one.path, OURS);
  const outcome = await one.boot();
  expect(outcome).toMatchObject({ state: "halted", kind: "diverged" });
  expect(outcome).toMatchObject({ message: expect.stringContaining("empty the volume") });
  expect(describeTree(one.path, OURS)).toEqual(before);
});

test.each([
  ["a history that ends earlier", async (store: MemoryStore) => store.delete(store.keys)],
  [
    "another history at the same position",
    async (store: MemoryStore) => {
      await store.delete(store.keys);
      (await committed(store))[Symbol.dispose]();
    },
  ],
])("%s is not written into", async (_, change) => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  await change(store);
  expect(await one.boot()).toMatchObject({ state: "halted", kind: "diverged" });
  expect(one.events.at(-1)).toMatchObject({ details: { reason: "other_history" } });
  expect(existsSync(tree.path)).toBe(true);
});

test.each([
  ["lost", (path: string) => rmSync(path)],
  ["damaged", (path: string) => truncateSync(path, 5_000)],
  ["nonsense", (path: string) => writeFileSync(path, "no database at all".repeat(1_000))],
])("an index that is %s is rebuilt, and nothing in the store is unknown to it", async (_, harm) => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  // Commits of ours that the marker never heard of.
  tree.write("home/more", "more");
  await tree.commit();
  writeFileSync(`${one.path}/home/more`, "more");
  for (const name of readdirSync(`${one.path}/.sidecar`)) {
    if (/-(wal|shm)$/.test(name)) rmSync(`${one.path}/.sidecar/${name}`);
  }
  harm(`${one.path}/.sidecar/index.sqlite`);
  const outcome = await one.boot();
  expect(outcome).toMatchObject({ state: "ready", position: 2, settled: true });
  if (outcome.state !== "ready") return;
  const known = [...(outcome.index?.all() ?? [])].map(({ entry }) => entry.path);
  expect(known.sort()).toEqual([...tree.writer.entries.keys()].sort());
  expect(one.changes()?.gone).toEqual([]);
});

test.each(["contents", "entries_inode", "attempts", "commits", "entries", "meta"])(
  "an index whose pages of %s are damaged is rebuilt",
  async (table) => {
    const store = new MemoryStore();
    using tree = await committed(store);
    using one = machine(store);
    await one.boot();
    one.close();
    const path = `${one.path}/.sidecar/index.sqlite`;
    damagePage(path, table);
    const outcome = await one.boot();
    expect(outcome).toMatchObject({ state: "ready", position: 1, settled: true });
    if (outcome.state !== "ready") return;
    const known = [...(outcome.index?.all() ?? [])].map(({ entry }) => entry.path);
    expect(known.sort()).toEqual([...tree.writer.entries.keys()].sort());
    expect(() => outcome.index?.check()).not.toThrow();
  },
);

test("a machine killed in its first life finds its way back without its index", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  // A marker that never heard of a commit.
  writeMarker(one.root, { user: "me", state: "ready", position: 0 });
  rmSync(`${one.path}/.sidecar/index.sqlite`);
  expect(await one.boot()).toMatchObject({ state: "ready", position: 1, settled: true });
  expect(one.changes()?.gone).toEqual([]);
  // To another machine it is a volume that nothing is known of.
  one.close();
  rmSync(`${one.path}/.sidecar/index.sqlite`);
  writeMarker(one.root, { user: "me", state: "ready", position: 0 });
  const other = await one.boot({ machine: "m2" });
  expect(other).toMatchObject({ state: "halted", kind: "diverged" });
  expect(existsSync(`${tree.path}/home`)).toBe(true);
});

test("a store that takes its time is given more of it, and is not taken for away for ever", async () => {
  const clock = new ManualClock();
  const memory = new MemoryStore(clock);
  using _ = await committed(memory);
  const slow = new FaultyStore(
    memory,
    ({ phase }) => (phase === "before" ? { delayMs: 12_000 } : undefined),
    clock,
  );
  using one = machine(slow, { clock });
  expect(await drive(clock, one.boot())).toMatchObject({ state: "ready", position: 1 });
});

test("a commit of ours that comes damaged from the store is still known as ours", async () => {
  const memory = new MemoryStore();
  using tree = await committed(memory);
  const bad = faultAt(
    { operation: "get", key: keys.commit(2), phase: "after" },
    { corrupt: flipBit },
    3,
  );
  const store = new FaultyStore(memory, bad);
  using one = machine(store);
  const outcome = await one.boot();
  if (outcome.state !== "ready") throw new Error(outcome.message);
  tree.write("workspace/notes/b.md", "b");
  const { id } = await tree.commit();
  outcome.index?.addAttempt(2, id);
  one.close();
  expect(await one.boot()).toMatchObject({ state: "ready", position: 2 });
});

test("a link in the place of the index is not followed", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  mkdirSync(`${one.path}/.sidecar`);
  writeFileSync(`${tree.path}/victim`, "not to be touched");
  symlinkSync(`${tree.path}/victim`, `${one.path}/.sidecar/index.sqlite`);
  symlinkSync(`${tree.path}/made`, `${one.path}/.sidecar/index.sqlite-wal`);
  expect(await one.boot()).toMatchObject({ state: "ready", position: 1 });
  expect(readFileSync(`${tree.path}/victim`, "utf8")).toBe("not to be touched");
  expect(existsSync(`${tree.path}/made`)).toBe(false);
});

test("a volume of another user is refused, with the backup on, off or away", async () => {
  for (const store of [new MemoryStore(), undefined, new FaultyStore(new MemoryStore(), AWAY)]) {
    using one = machine(store);
    writeMarker(one.root, { user: "you", state: "ready", position: 3 });
    const outcome = await one.boot();
    expect(outcome).toMatchObject({ state: "halted", kind: "wrong_user" });
    expect(readMarker(one.root)).toMatchObject({ marker: { user: "you", position: 3 } });
  }
});

test("a damaged or newer marker is never a new machine", async () => {
  for (const [text, kind] of [
    ["{", "damaged_marker"],
    ['{"version":9}', "newer"],
  ] as const) {
    using one = machine(new MemoryStore());
    mkdirSync(`${one.path}/.sidecar`);
    writeFileSync(`${one.path}/.sidecar/volume.json`, text);
    expect(await one.boot()).toMatchObject({ state: "halted", kind });
    expect(readdirSync(`${one.path}/.sidecar`)).toEqual(["volume.json"]);
  }
});

test("with the backup off a volume is new, adopted or gone on with, and needs no index", async () => {
  using one = machine(undefined);
  expect(await one.boot()).toMatchObject({ state: "ready", fresh: true, index: undefined });
  finishFresh(one.root);
  mkdirSync(`${one.path}/workspace`);
  expect(await one.boot()).toMatchObject({ state: "ready", fresh: false });
  using two = machine(undefined);
  mkdirSync(`${two.path}/workspace`);
  expect(await two.boot()).toMatchObject({ state: "ready", fresh: false });
  expect(readdirSync(`${two.path}/.sidecar`)).toEqual(["volume.json"]);
});

test("a volume that was emptied from outside is restored", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  using one = machine(store);
  await one.boot();
  one.close();
  for (const name of ["workspace", "openclaw", "home"]) {
    rmSync(`${one.path}/${name}`, { recursive: true });
  }
  expect(await one.boot()).toMatchObject({ state: "ready", position: 1 });
  expect(describeTree(one.path, OURS)).toEqual(describeTree(tree.path));
});

test("a history that cannot be read halts with what to do, and stays a restore", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  store.tamper("commits/0000000001.tar.zst", (bytes) => bytes.subarray(0, 20));
  using one = machine(store);
  expect(await one.boot()).toMatchObject({
    state: "halted",
    kind: "failing",
    message: expect.stringContaining("restore an earlier moment"),
  });
  expect(one.events).toMatchObject([{ type: "restore_failed" }]);
  expect(existsSync(tree.path)).toBe(true);
  expect(whyNotReady(one.root, "me")).toBeDefined();
});

test("a full volume goes on at once without its store, and catches up later", async () => {
  const store = new MemoryStore();
  using tree = await committed(store);
  const faulty = new FaultyStore(store);
  using one = machine(faulty);
  await one.boot();
  one.close();
  faulty.script = AWAY;
  const outcome = await one.boot();
  expect(outcome).toMatchObject({ state: "ready", position: 1, settled: false });
  if (outcome.state !== "ready" || !outcome.index) throw new Error("not ready");
  const context = { ...one.context, index: outcome.index };
  const { signal } = new AbortController();

  faulty.script = ({ count }) => (count < 5 ? { fail: "unavailable" } : undefined);
  faulty.steps.length = 0;
  expect(await catchUp(context, signal)).toMatchObject({ state: "ready", position: 1 });

  tree.write("workspace/notes/a.md", "by others");
  await tree.commit();
  expect(await catchUp(context, signal)).toMatchObject({ state: "behind" });

  writeFileSync(`${one.path}/workspace/mine`, "mine");
  expect(await catchUp(context, signal)).toMatchObject({ state: "halted", kind: "diverged" });
  outcome.index.head();
});
