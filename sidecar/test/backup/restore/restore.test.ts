import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import * as fc from "fast-check";

import { keys, type Entry } from "../../../src/backup/format/format.ts";
import { Index } from "../../../src/backup/index.ts";
import type { Progress } from "../../../src/backup/restore/progress.ts";
import { RestoreError } from "../../../src/backup/restore/restore-error.ts";
import { Restore, type RestoreOptions } from "../../../src/backup/restore/restore.ts";
import { UNRESTORED, stampOf } from "../../../src/backup/stamp.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";
import { readMarker } from "../../../src/volume/marker.ts";
import { Root } from "../../../src/volume/root.ts";
import { fileName } from "../../support/backup-arbitraries.ts";
import { FaultyStore, faultAt, flipBit } from "../../support/faulty-store.ts";
import { HistoryWriter } from "../../support/history.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { isRoot, makeOddTree, pseudoRandom } from "../../support/odd-tree.ts";
import { replica } from "../../support/replica.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

const OURS = { skip: [".sidecar", "lost+found"] };

/** An empty volume and all that a restore of it takes. */
function volume(store: RestoreOptions["store"]) {
  const dir = tempDir();
  const root = new Root(dir.path);
  let index: Index | undefined;
  const openIndex = (): Index => (index ??= new Index(`${dir.path}/.sidecar/index.sqlite`));
  return {
    path: dir.path,
    root,
    openIndex,
    restore: (more: Partial<RestoreOptions> = {}): Restore =>
      new Restore({
        root,
        user: "me",
        clock: systemClock,
        openIndex,
        kind: "whole",
        store,
        ...more,
      }),
    [Symbol.dispose]() {
      index?.[Symbol.dispose]();
      root[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

/** A folder with the files given. */
function source(files: Readonly<Record<string, string | Uint8Array>> = {}) {
  const dir = tempDir();
  const write = (more: Readonly<Record<string, string | Uint8Array>>): void => {
    for (const [path, content] of Object.entries(more)) {
      mkdirSync(`${dir.path}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      writeFileSync(`${dir.path}/${path}`, content);
    }
  };
  write(files);
  return Object.assign(dir, { write });
}

const file = (path: string, extra: Partial<Entry> = {}): Entry =>
  ({
    type: "file",
    path,
    mode: 0o644,
    mtimeNs: "1700000000000000000",
    size: 0,
    sha256: new Bun.CryptoHasher("sha256").digest("hex"),
    extents: [],
    ...extra,
  }) as Entry;

test("a restored tree is the one that was committed, to the nanosecond", async () => {
  using tree = tempDir();
  using objects = tempDir();
  makeOddTree(tree.path);
  const store = new DirectoryStore(objects.path);
  await new HistoryWriter(store).commitTree(tree.path);
  using target = volume(store);
  const result = await target.restore().run();
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
  expect(result).toMatchObject({ position: 1, unrestored: [], replaced: undefined });
  expect(readMarker(target.root)).toEqual({
    kind: "ok",
    marker: { version: 1, user: "me", state: "ready", position: 1 },
  });
  const own = readdirSync(`${target.path}/.sidecar`).filter((name) => !name.startsWith("index"));
  expect(own).toEqual(["volume.json"]);
});

test("after a restore the index has every entry as it is on the disk", async () => {
  using tree = tempDir();
  makeOddTree(tree.path);
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path);
  using target = volume(store);
  await target.restore().run();
  const index = target.openIndex();
  using root = target.root.dir("");
  for (const { entry, stamp } of index.all()) {
    using place = target.root.place(entry.path);
    expect([entry.path, stamp]).toEqual([entry.path, stampOf(place.dir.lstat(place.name)) ?? ""]);
  }
  expect(index.totals().entries).toBe(history.entries.size);
  expect(index.head()).toMatchObject({ position: 1, id: history.head?.id ?? "" });
  const { ino, dev } = root.openDir("home").lstat("names");
  expect(index.linkGroup(`${dev}:${ino}`)).toBe("home/a third");
});

test("a tree is put together from a checkpoint and the commits since", async () => {
  using tree = source({ "workspace/a": "1", "workspace/gone/x": "x", "home/b": "b" });
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path);
  tree.write({ "workspace/a": "2" });
  await history.commitTree(tree.path);
  await history.checkpoint();
  renameSync(`${tree.path}/workspace/gone`, `${tree.path}/workspace/moved`);
  await history.commitTree(tree.path);
  tree.write({ "workspace/c": "c", "home/b": "bb" });
  await history.commitTree(tree.path);
  using target = volume(store);
  expect((await target.restore().run()).position).toBe(4);
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
  expect(target.openIndex().checkpoint()?.position).toBe(2);
  expect(
    target
      .openIndex()
      .headersAfter(2)
      .map(({ position }) => position),
  ).toEqual([3, 4]);
});

test("content is put together from slices of blobs, of commits and of parts", async () => {
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  const blob = pseudoRandom(300_000);
  const hash = new Bun.CryptoHasher("sha256").update(blob).digest("hex");
  await store.put(keys.blob(hash), blob);
  const member = Buffer.from("0123456789");
  const whole = Buffer.concat([blob.subarray(1_000, 200_000), member.subarray(2, 5), member]);
  await history.commit({
    members: new Map([["data/x", member]]),
    entries: [
      file("x", contentOf(member, [{ commit: 1, member: "data/x", offset: 0, length: 10 }])),
    ],
  });
  // A part is a tar like that of a commit.
  await store.put("checkpoints/0000000009/part-1.tar.zst", await store.get(keys.commit(1)));
  await history.commit({
    entries: [
      file(
        "sliced",
        contentOf(whole, [
          { blob: hash, offset: 1_000, length: 199_000 },
          { commit: 1, member: "data/x", offset: 2, length: 3 },
          {
            part: "checkpoints/0000000009/part-1.tar.zst",
            member: "data/x",
            offset: 0,
            length: 10,
          },
        ]),
      ),
    ],
  });
  using target = volume(store);
  expect((await target.restore().run()).unrestored).toEqual([]);
  expect(readFileSync(`${target.path}/sliced`).equals(whole)).toBe(true);
});

test("what stands in the way is put aside, and what is the machine's own stays", async () => {
  using tree = source({ "workspace/a": "from the backup" });
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  using target = volume(store);
  mkdirSync(`${target.path}/workspace`);
  mkdirSync(`${target.path}/lost+found`);
  writeFileSync(`${target.path}/workspace/a`, "local");
  writeFileSync(`${target.path}/other`, "local too");
  const { replaced = "" } = await target.restore().run();
  expect(readdirSync(target.path).sort()).toEqual([".sidecar", "lost+found", "workspace"]);
  expect(readFileSync(`${target.path}/workspace/a`, "utf8")).toBe("from the backup");
  const aside = `${target.path}/.sidecar/${replaced}`;
  expect(readFileSync(`${aside}/workspace/a`, "utf8")).toBe("local");
  expect(readFileSync(`${aside}/other`, "utf8")).toBe("local too");
});

test("paths that lead into our folder, through a link or below a file are refused", async () => {
  using outside = tempDir();
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  const paths = [
    ".sidecar/volume.json",
    "lost+found/x",
    `${"n".repeat(256)}/x`,
    "link/through",
    "plain/below a file",
  ];
  await history.commit({
    entries: [
      { type: "symlink", path: "link", target: outside.path, mtimeNs: "0" },
      file("plain"),
      file("workspace/good"),
      ...paths.map((path) => file(path)),
    ],
  });
  using target = volume(store);
  const { unrestored } = await target.restore().run();
  expect(unrestored.map(({ path }) => path).sort()).toEqual(paths.toSorted());
  expect(readdirSync(outside.path)).toEqual([]);
  expect(Object.keys(describeTree(target.path, OURS))).toEqual([
    "link",
    "plain",
    "workspace",
    "workspace/good",
  ]);
  expect(target.openIndex().unrestored().sort()).toEqual(paths.toSorted());
});

test("setuid and setgid do not come back", async () => {
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commit({
    entries: [{ type: "directory", path: "shared", mode: 0o7755, mtimeNs: "0" }],
  });
  using target = volume(store);
  await target.restore().run();
  expect((statSync(`${target.path}/shared`).mode & 0o7777).toString(8)).toBe("1755");
});

test.skipIf(!isRoot())("everything belongs to the owner", async () => {
  using tree = tempDir();
  makeOddTree(tree.path);
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  using target = volume(store);
  const owner = { uid: 12_345, gid: 23_456 };
  await target.restore({ owner }).run();
  for (const path of Object.keys(describeTree(target.path, OURS))) {
    using place = target.root.place(path);
    const { uid, gid } = place.dir.lstat(place.name);
    expect([path, Number(uid), Number(gid)]).toEqual([path, owner.uid, owner.gid]);
  }
  expect(statSync(`${target.path}/.sidecar`).uid).toBe(0);
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

const LARGE = pseudoRandom(400_000);
const LARGE_HASH = new Bun.CryptoHasher("sha256").update(LARGE).digest("hex");

test.each([
  ["flipped bit", (bytes: Uint8Array) => flipBit(bytes)],
  ["cut", (bytes: Uint8Array) => bytes.subarray(0, -1)],
  ["longer", (bytes: Uint8Array) => Buffer.concat([bytes, bytes])],
  ["empty", () => new Uint8Array()],
])("content that is damaged on its way (%s) is fetched once more", async (_, corrupt) => {
  using tree = source({ "workspace/large": LARGE });
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  const key = keys.blob(LARGE_HASH);
  const faulty = new FaultyStore(store, faultAt({ key, phase: "after" }, { corrupt }, 1));
  using target = volume(faulty);
  expect((await target.restore().run()).unrestored).toEqual([]);
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

test.each([
  ["a flipped bit", (store: MemoryStore, key: string) => store.tamper(key, flipBit)],
  ["a cut object", (store: MemoryStore, key: string) => store.tamper(key, (b) => b.subarray(9))],
  ["no object", (store: MemoryStore, key: string) => store.delete([key])],
])("%s loses one file and no other, and never counts as a deletion", async (_, damage) => {
  using tree = source({
    "workspace/notes": pseudoRandom(100_000, 1),
    "openclaw/state.db": pseudoRandom(100_000, 2),
    "workspace/good": "good",
  });
  const sqlite = (entry: Entry): Entry =>
    entry.path.endsWith(".db") ? { ...entry, sqlite: true } : entry;
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path, { entry: sqlite });
  tree.write({ "workspace/notes": pseudoRandom(100_000, 3) });
  tree.write({ "openclaw/state.db": pseudoRandom(100_000, 4) });
  await history.commitTree(tree.path, { entry: sqlite });
  for (const path of ["workspace/notes", "openclaw/state.db"]) {
    const entry = history.entries.get(path);
    await damage(store, keys.blob(entry?.type === "file" ? entry.sha256 : ""));
  }
  using target = volume(store);
  const { unrestored } = await target.restore().run();
  expect(unrestored.map(({ path }) => path).sort()).toEqual([
    "openclaw/state.db",
    "workspace/notes",
  ]);
  expect(unrestored.find(({ path }) => path === "workspace/notes")?.substitute).toEqual({
    path: "workspace/notes.restored-1",
    position: 1,
  });
  const read = (path: string): Buffer => readFileSync(`${target.path}/${path}`);
  expect(read("workspace/good").toString()).toBe("good");
  expect(read("workspace/notes.restored-1").equals(pseudoRandom(100_000, 1))).toBe(true);
  expect(read("openclaw/state.db").equals(pseudoRandom(100_000, 2))).toBe(true);
  expect(existsSync(`${target.path}/workspace/notes`)).toBe(false);
  const index = target.openIndex();
  expect(index.get("workspace/notes")).toMatchObject({ stamp: UNRESTORED });
  // What the store says it has of it is not relied on when the same content comes back.
  const lost = history.entries.get("workspace/notes");
  expect(index.locate(lost?.type === "file" ? lost.sha256 : "")).toBeUndefined();
});

test("what retention removed meanwhile is planned again", async () => {
  using tree = source({ "workspace/a": pseudoRandom(100_000, 1) });
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path);
  const [blob = ""] = store.keys.filter((key) => key.startsWith(keys.blobs));
  // While the restore runs the file is changed elsewhere, and what only the old commit needed is removed.
  const faulty = new FaultyStore(store, async ({ key, countOfKey, phase }) => {
    if (key !== blob || countOfKey > 1 || phase !== "before") return;
    tree.write({ "workspace/a": pseudoRandom(100_000, 2) });
    await history.commitTree(tree.path);
    await history.checkpoint();
    await store.delete([keys.commit(1), blob]);
  });
  using target = volume(faulty);
  expect(await target.restore().run()).toMatchObject({ position: 2, unrestored: [] });
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

test("a stream that breaks off in the middle is begun again", async () => {
  using tree = source({ "home/huge": pseudoRandom(3_000_000) });
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  let broken = 0;
  const breaking = {
    get: store.get.bind(store),
    list: store.list.bind(store),
    stream: async (...args: Parameters<typeof store.stream>) => {
      const whole = await store.stream(...args);
      broken += 1;
      if (broken > 2) return whole;
      return whole.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform: async (chunk, controller) => {
            controller.enqueue(chunk);
            await store.get("none such").catch(() => undefined);
            if (broken <= 2) controller.error(await unavailable());
          },
        }),
      );
    },
  };
  using target = volume(breaking);
  expect((await target.restore().run()).unrestored).toEqual([]);
  expect(broken).toBe(3);
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

test("a store that goes away ends the restore, and the next one goes on from what is there", async () => {
  const many = Object.fromEntries(
    Array.from({ length: 60 }, (_, n) => [`workspace/${n}`, pseudoRandom(70_000, n + 1)]),
  );
  using tree = source(many);
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  const faulty = new FaultyStore(store, ({ key, count, operation }) =>
    operation === "get" && key.startsWith(keys.blobs) && count > 30
      ? { fail: new Error("gone for good") }
      : undefined,
  );
  using target = volume(faulty);
  await expect(target.restore().run()).rejects.toThrow("gone for good");
  expect(readMarker(target.root)).toMatchObject({ marker: { state: "restoring", position: 1 } });
  expect(Object.keys(describeTree(target.path, OURS))).toEqual([]);
  const staged = readdirSync(`${target.path}/.sidecar/restore/tree/workspace`).length;
  expect(staged).toBeGreaterThan(10);
  // One that is there is not believed.
  const [name = ""] = readdirSync(`${target.path}/.sidecar/restore/tree/workspace`);
  writeFileSync(`${target.path}/.sidecar/restore/tree/workspace/${name}`, pseudoRandom(70_000, 99));
  faulty.script = () => undefined;
  faulty.steps.length = 0;
  await target.restore().run();
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
  const fetched = faulty.steps.filter(
    ({ key, phase }) => phase === "after" && key.startsWith(keys.blobs),
  );
  expect(fetched.length).toBe(60 - staged + 1);
});

test("an abort keeps what is staged and says so in the marker", async () => {
  using tree = source(
    Object.fromEntries(
      Array.from({ length: 40 }, (_, n) => [`a/${n}`, pseudoRandom(70_000, n + 1)]),
    ),
  );
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  const stop = new AbortController();
  const faulty = new FaultyStore(store, ({ key, count }) => {
    if (key.startsWith(keys.blobs) && count > 20) stop.abort(new Error("told to stop"));
  });
  using target = volume(faulty);
  await expect(target.restore({ signal: stop.signal }).run()).rejects.toThrow("told to stop");
  expect(readMarker(target.root)).toMatchObject({ marker: { state: "restoring" } });
  await target.restore().run();
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

test("a volume that is too small says how much is missing, before anything is fetched", async () => {
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  const size = 2 ** 50;
  await history.commit({
    entries: [file("huge", { size, extents: [{ blob: LARGE_HASH, offset: 0, length: size }] })],
  });
  using target = volume(store);
  const failure = await target
    .restore()
    .run()
    .catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(RestoreError);
  expect(failure).toMatchObject({
    kind: "no_room",
    message: expect.stringMatching(/lacks \d+ MiB; extend it/),
  });
});

test("progress counts files and bytes up to the end, and can be asked for at any time", async () => {
  using tree = source({ "a/1": "x", "a/2": pseudoRandom(100_000), "a/3": "" });
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  using target = volume(store);
  const told: Progress[] = [];
  const restore = target.restore({ onProgress: (progress) => told.push(progress) });
  await restore.run();
  const end = { files: 3, filesDone: 3, bytes: 100_001, bytesDone: 100_001, etaS: 0 };
  expect(told[0]).toEqual({ ...end, filesDone: 0, bytesDone: 0, etaS: undefined });
  expect(told.at(-1)).toEqual(end);
  expect(restore.progress).toEqual(end);
});

test("links and folders that are swapped in while a restore runs lead nowhere", async () => {
  using tree = tempDir();
  using outside = tempDir();
  makeOddTree(tree.path);
  const store = new MemoryStore();
  await new HistoryWriter(store).commitTree(tree.path);
  const faulty = new FaultyStore(store);
  using target = volume(faulty);
  const staging = `${target.path}/.sidecar/restore/tree`;
  let swapped = 0;
  faulty.script = ({ operation, phase }) => {
    if (operation === "list" || phase === "after" || !existsSync(staging)) return;
    for (const name of readdirSync(staging)) {
      if (!statSync(`${staging}/${name}`).isDirectory()) continue;
      renameSync(`${staging}/${name}`, `${outside.path}/moved-${swapped}`);
      symlinkSync(outside.path, `${staging}/${name}`);
      swapped += 1;
      return;
    }
  };
  symlinkSync(outside.path, `${target.path}/workspace`);
  await target
    .restore()
    .run()
    .catch(() => undefined);
  expect(swapped).toBeGreaterThan(0);
  faulty.script = () => undefined;
  await target.restore().run();
  const planted = readdirSync(outside.path).filter((name) => !name.startsWith("moved-"));
  expect(planted).toEqual([]);
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
});

test("an old copy is brought forward: equal files are not fetched, ignored ones stay, the rest goes", async () => {
  using tree = source({
    "workspace/same": pseudoRandom(80_000, 1),
    "workspace/changed": pseudoRandom(80_000, 2),
    "workspace/gone": pseudoRandom(80_000, 3),
    "home/dir/x": "x",
  });
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path);
  const faulty = new FaultyStore(store);
  using target = volume(faulty);
  await target.restore().run();
  // Not in the index: what is never backed up.
  mkdirSync(`${target.path}/workspace/node_modules/left-pad`, { recursive: true });
  writeFileSync(`${target.path}/workspace/node_modules/left-pad/index.js`, "pad");
  writeFileSync(`${target.path}/ignored at the top`, "kept");
  tree.write({ "workspace/changed": pseudoRandom(80_000, 4), "workspace/new": "new" });
  renameSync(`${tree.path}/workspace/gone`, `${tree.path}/home/moved`);
  await history.commitTree(tree.path);
  const before = statSync(`${target.path}/workspace/same`).ino;
  faulty.steps.length = 0;
  await target.restore({ kind: "forward" }).run();
  const blobs = faulty.steps.filter(
    ({ key, phase }) => phase === "after" && key.startsWith(keys.blobs),
  );
  expect(blobs.length).toBe(2);
  expect(statSync(`${target.path}/workspace/same`).ino).toBe(before);
  const found = describeTree(target.path, OURS);
  const { "ignored at the top": top, ...rest } = found;
  expect(top?.type).toBe("file");
  expect(rest["workspace/node_modules/left-pad/index.js"]?.type).toBe("file");
  const committed = Object.entries(rest).filter(([path]) => !path.includes("node_modules"));
  expect(Object.fromEntries(committed)).toEqual(describeTree(tree.path));
  expect(
    readdirSync(`${target.path}/.sidecar`).filter((name) => name.startsWith("replaced")),
  ).toEqual([]);
});

test("an old copy brought forward loses nothing that only it has", async () => {
  using tree = source({ "workspace/films/list": "list", "workspace/turned/x": "x", "home/y": "y" });
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  await history.commitTree(tree.path);
  using target = volume(store);
  await target.restore().run();
  // Too large, or not allowed to be read: never backed up.
  writeFileSync(`${target.path}/workspace/films/large`, "stands for many GiB");
  writeFileSync(`${target.path}/workspace/turned/large`, "another one");
  const nameless = Buffer.concat([Buffer.from(`${target.path}/home/`), Buffer.from([0xff])]);
  writeFileSync(nameless, "its name is not UTF-8");
  rmSync(`${tree.path}/workspace/films`, { recursive: true });
  rmSync(`${tree.path}/workspace/turned`, { recursive: true });
  tree.write({ "workspace/turned": "a file now" });
  await history.commitTree(tree.path);
  const { replaced } = await target.restore({ kind: "forward" }).run();
  expect(readFileSync(`${target.path}/workspace/films/large`, "utf8")).toContain("many GiB");
  expect(readFileSync(`${target.path}/workspace/turned`, "utf8")).toBe("a file now");
  const aside = `${target.path}/.sidecar/${replaced}`;
  expect(readFileSync(`${aside}/workspace/turned/large`, "utf8")).toBe("another one");
  expect(readdirSync(`${aside}/home`, { encoding: "buffer" })).toEqual([Buffer.from([0xff])]);
});

test("an old copy brought forward leaves no log beside a newer database", async () => {
  using first = source();
  const live = join(first.path, "live.db");
  using database = new Database(live, { create: true });
  database.run("PRAGMA journal_mode = WAL");
  database.run("CREATE TABLE t (n)");
  const store = new MemoryStore();
  const insert = async (n: number): Promise<number> => {
    database.run("INSERT INTO t VALUES (?)", [n]);
    using one = replica({ store, clock: systemClock, volume: first.path });
    const signal = AbortSignal.timeout(50_000);
    await one.replicator.start(signal);
    const { position } = await one.replicator.flush(signal);
    await one.replicator.stop(signal);
    return position;
  };
  await insert(1);
  using target = volume(store);
  await target.restore({ user: "user-1" }).run();
  // The old copy has what the history has, but some of it in a log; and logs without their databases.
  for (const end of ["", "-wal", "-shm"])
    copyFileSync(live + end, join(target.path, `live.db${end}`));
  writeFileSync(join(target.path, "left.db-wal"), readFileSync(`${live}-wal`));
  writeFileSync(join(target.path, "new.db-wal"), readFileSync(`${live}-wal`));
  for (const name of ["new.db", "new.db-journal"]) copyFileSync(live, join(first.path, name));
  for (let n = 2; n < 50; n += 1) database.run("INSERT INTO t VALUES (?)", [n]);
  await insert(50);
  await target.restore({ kind: "forward", user: "user-1" }).run();
  expect(
    readdirSync(target.path)
      .filter((name) => /db/.test(name))
      .sort(),
  ).toEqual(["left.db-wal", "live.db", "new.db"]);
  using restored = new Database(join(target.path, "live.db"));
  expect(restored.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
  expect(restored.query("SELECT count(*), max(n) FROM t").values()).toEqual([[50, 50]]);
});

function contentOf(bytes: Uint8Array, extents: readonly object[]): Partial<Entry> {
  const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
  return { size: bytes.length, sha256, extents };
}

async function unavailable(): Promise<Error> {
  const { StoreError } = await import("../../../src/store/store.ts");
  return new StoreError("unavailable", "the line went dead");
}

const names = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom("a", "b", "c") },
  { weight: 1, arbitrary: fileName },
);
const nodes = fc.dictionary(
  fc.array(names, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/")),
  fc.oneof(
    fc.record({ text: fc.string({ maxLength: 40 }), mode: fc.integer({ min: 0, max: 0o777 }) }),
    fc.record({
      target: fc.string({ minLength: 1, maxLength: 9 }).map((s) => `t${s.replaceAll("\0", "_")}`),
    }),
    fc.constant({}),
  ),
  { maxKeys: 12 },
);

test("whatever trees follow one another, the last one comes back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(nodes, { minLength: 1, maxLength: 4 }), async (trees) => {
      const store = new MemoryStore();
      const history = new HistoryWriter(store);
      let wanted = {};
      for (const [at, spec] of trees.entries()) {
        using tree = tempDir();
        plant(tree.path, spec);
        await history.commitTree(tree.path);
        if (at % 2 === 1) await history.checkpoint();
        wanted = describeTree(tree.path, OURS);
      }
      using target = volume(store);
      const { unrestored } = await target.restore().run();
      expect(unrestored).toEqual([]);
      expect(describeTree(target.path, OURS)).toEqual(wanted);
    }),
    { numRuns: 40 },
  );
});

/** Makes the files, links and folders of a specification, as far as they do not contradict each other. */
function plant(
  root: string,
  spec: Readonly<Record<string, { text?: string; mode?: number; target?: string }>>,
): void {
  for (const [path, { text, mode, target }] of Object.entries(spec)) {
    try {
      mkdirSync(`${root}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      if (text !== undefined)
        writeFileSync(`${root}/${path}`, text, { flag: "wx", mode: mode ?? 0o644 });
      else if (target !== undefined) symlinkSync(target, `${root}/${path}`);
      else mkdirSync(`${root}/${path}`);
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (!["EEXIST", "ENOTDIR", "ELOOP", "ENOENT"].includes(code)) throw error;
    }
  }
}

test("contents that are scattered over many commits are fetched side by side, each commit once", async () => {
  using tree = source();
  const store = new MemoryStore();
  const history = new HistoryWriter(store);
  for (let n = 0; n < 40; n += 1) {
    tree.write({ [`a/${n}`]: `content ${n}` });
    await history.commitTree(tree.path);
  }
  await history.checkpoint();
  let running = 0;
  let most = 0;
  const faulty = new FaultyStore(store, async ({ key, phase }) => {
    if (!key.startsWith(keys.commits) || key === keys.commits) return;
    running += phase === "before" ? 1 : -1;
    most = Math.max(most, running);
    await systemClock.sleep(1);
  });
  using target = volume(faulty);
  await target.restore().run();
  expect(describeTree(target.path, OURS)).toEqual(describeTree(tree.path));
  const gets = faulty.steps.filter(
    ({ operation, key, phase }) =>
      operation === "get" && phase === "before" && key.startsWith(keys.commits),
  );
  expect(gets.length).toBe(40);
  expect(most).toBeGreaterThan(4);
});
