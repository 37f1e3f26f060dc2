import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { bootVolume } from "../../../src/backup/boot/boot.ts";
import { Committer, type CommitResult } from "../../../src/backup/commit/committer.ts";
import { encodePart } from "../../../src/backup/format/codec.ts";
import { keys, partKey, type FileEntry } from "../../../src/backup/format/format.ts";
import { encodeManifest } from "../../../src/backup/format/manifest.ts";
import { Contents } from "../../../src/backup/history/contents.ts";
import { foldTree, readCommit } from "../../../src/backup/history/history.ts";
import { Index } from "../../../src/backup/index.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { Patience } from "../../../src/backup/patience.ts";
import { ReadContext } from "../../../src/backup/read/read-context.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { CountingStore } from "../../../src/store/counting.ts";
import type { Body, PutOptions } from "../../../src/store/store.ts";
import { Root } from "../../../src/volume/root.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { pseudoRandom } from "../../support/odd-tree.ts";
import { sha256 } from "../../support/readings.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";

// The machine may be busy.
setDefaultTimeout(120_000);

const KIB = 1024;
const MIB = 1024 * KIB;
const never = new AbortController().signal;
const TREE = { skip: [".sidecar", ".sidecar-copies", ".last-sync", "lost+found"] };

/** A store in memory that can be told to do something before an object is put. */
class Watched extends MemoryStore {
  onPut: ((key: string) => void) | undefined;

  override put(key: string, body: Body, options?: PutOptions): Promise<void> {
    this.onPut?.(key);
    return super.put(key, body, options);
  }
}

/** A real folder, read and committed path by path, and what was sent counted. */
function bench() {
  const dir = tempDir();
  const volume = join(dir.path, "data");
  mkdirSync(join(volume, ".sidecar"), { recursive: true });
  const memory = new Watched(systemClock);
  const store = new CountingStore(memory);
  const root = new Root(volume);
  const index = new Index(join(volume, ".sidecar/index.sqlite"));
  const clock = systemClock;
  const context = new ReadContext({ root, index, ignore: createIgnore(), clock });
  const patience = new Patience({ clock });
  const rest = { user: "user-1", machine: "machine-1", fence: "on" } as const;
  const committer = new Committer({ store, index, clock, patience, ...rest });
  let counted = 0;
  const sent = (): number => {
    const before = counted;
    counted = store.counts.sentBytes;
    return counted - before;
  };
  const read = async (...paths: string[]): Promise<Reading[]> => {
    context.startBatch();
    const readings: Reading[] = [];
    for (const path of paths) readings.push(await readPath(path, context));
    return readings;
  };
  const commit = (readings: readonly Reading[]): Promise<CommitResult> =>
    committer.commit(readings, { signal: never });
  return {
    dir,
    volume,
    memory,
    store,
    index,
    context,
    at: (path: string) => join(volume, path),
    read,
    commit,
    /** Reads and commits these paths. Resolves with the bytes that were sent for them. */
    sync: async (...paths: string[]): Promise<number> => {
      const result = await commit(await read(...paths));
      expect(result).toMatchObject({ left: [], failures: [] });
      return sent();
    },
    entry: (path: string): FileEntry => {
      const entry = index.get(path)?.entry;
      if (entry?.type !== "file") throw new Error(`no file: ${path}`);
      return entry;
    },
    /** Every file of the newest tree, put together from the store, has the hash its entry says. */
    verify: async (): Promise<void> => {
      const tree = await foldTree(memory);
      const contents = new Contents(memory);
      for (const entry of tree?.entries.values() ?? [])
        if (entry.type === "file") expect(await hashIn(contents, entry)).toBe(entry.sha256);
    },
    async [Symbol.asyncDispose]() {
      context[Symbol.dispose]();
      index[Symbol.dispose]();
      root[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

async function hashIn(contents: Contents, entry: FileEntry): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const piece of contents.read(entry)) hasher.update(piece);
  return hasher.digest("hex");
}

function overwrite(path: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

test("1 KiB appended to a file of 50 MiB sends less than 16 KiB, and small edits little more than their blocks", async () => {
  await using t = bench();
  const path = t.at("log.jsonl");
  writeFileSync(path, pseudoRandom(50 * MIB));
  expect(await t.sync("log.jsonl")).toBeGreaterThan(50 * MIB);
  for (let n = 1; n <= 3; n += 1) {
    appendFileSync(path, pseudoRandom(KIB, n));
    expect(await t.sync("log.jsonl")).toBeLessThan(16 * KIB);
  }
  overwrite(path, 20 * MIB + 100, pseudoRandom(64 * KIB, 9));
  expect(await t.sync("log.jsonl")).toBeLessThan(140 * KIB);
  overwrite(path, 20 * MIB, Buffer.from("a line in the middle"));
  overwrite(path, 40 * MIB, Buffer.from("another"));
  expect(await t.sync("log.jsonl")).toBeLessThan(140 * KIB);
  truncateSync(path, 30 * MIB);
  expect(await t.sync("log.jsonl")).toBeLessThan(4 * KIB);
  const { size, extents } = t.entry("log.jsonl");
  expect(size).toBe(30 * MIB);
  expect(extents.length).toBeLessThan(8);
  await t.verify();
});

test("what is new and large goes as a blob of its own, and is checked like one", async () => {
  await using t = bench();
  const path = t.at("large.bin");
  writeFileSync(path, pseudoRandom(6 * MIB));
  await t.sync("large.bin");
  const news = pseudoRandom(MIB, 5);
  appendFileSync(path, news);
  expect(await t.sync("large.bin")).toBeLessThan(MIB + 4 * KIB);
  expect(t.entry("large.bin").extents).toMatchObject([
    { length: 6 * MIB },
    { blob: sha256(news), offset: 0, length: MIB },
  ]);
  // Changed after it was hashed, before it is sent: nothing of it is stored or recorded.
  const before = t.entry("large.bin");
  appendFileSync(path, pseudoRandom(MIB, 6));
  const readings = await t.read("large.bin");
  overwrite(path, 7 * MIB + 10, Buffer.from("changed"));
  const result = await t.commit(readings);
  expect(result).toMatchObject({ kind: "nothing", again: ["large.bin"] });
  expect(t.entry("large.bin")).toEqual(before);
  expect(t.memory.keys.filter((key) => key.startsWith(keys.blobs))).toHaveLength(2);
  await t.sync("large.bin");
  await t.verify();
});

test("a delta holds only for the content it was compared with", async () => {
  await using t = bench();
  const path = t.at("log");
  writeFileSync(path, pseudoRandom(MIB));
  await t.sync("log");
  appendFileSync(path, "one");
  const early = await t.read("log");
  appendFileSync(path, "two");
  await t.sync("log");
  const recorded = t.entry("log");
  // Read before the index went on: what it says is of no use any more.
  expect(await t.commit(early)).toMatchObject({ kind: "nothing", left: ["log"], again: ["log"] });
  expect(t.entry("log")).toEqual(recorded);
  // Moved in the store meanwhile: the pieces are the same, wherever they stand.
  appendFileSync(path, "three");
  const readings = await t.read("log");
  const extents = recorded.extents.map((extent, n) =>
    n === 0 ? { ...extent, moved: true } : extent,
  );
  t.index.relocate(new Map([[recorded.sha256, extents]]));
  expect(await t.commit(readings)).toMatchObject({ kind: "committed", left: [] });
  expect(t.entry("log").extents[0]).toMatchObject({ moved: true });
  await t.verify();
});

test("100 rows into a WAL database of 38 MB send less than 1 MiB", async () => {
  await using t = bench();
  const path = t.at("main.sqlite");
  using database = new Database(path, { create: true });
  database.run("PRAGMA journal_mode = WAL");
  database.run("CREATE TABLE messages (id INTEGER PRIMARY KEY, session TEXT, text TEXT)");
  database.run("CREATE INDEX by_session ON messages (session)");
  const insert = database.prepare("INSERT INTO messages (session, text) VALUES (?, ?)");
  const add = (rows: number, seed: number): void =>
    database.transaction(() => {
      const bytes = Buffer.from(pseudoRandom(rows * 500, seed));
      for (let n = 0; n < rows; n += 1)
        insert.run(`session ${n % 3}`, bytes.toString("hex", n * 500, n * 500 + 500));
    })();
  add(36_500, 1);
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  expect(statSync(path).size).toBeGreaterThan(36_000_000);
  await t.sync("main.sqlite");
  for (let n = 2; n <= 4; n += 1) {
    add(100, n);
    expect(await t.sync("main.sqlite")).toBeLessThan(MIB);
  }
  await t.verify();
  insert.finalize();
});

test("a chain of 1,000 appends stays short, and every one of it can be restored", async () => {
  await using t = bench();
  const path = t.at("log.jsonl");
  writeFileSync(path, pseudoRandom(300 * KIB));
  await t.sync("log.jsonl");
  let sentBytes = 0;
  for (let n = 1; n <= 1_000; n += 1) {
    appendFileSync(path, pseudoRandom(KIB, n));
    sentBytes += await t.sync("log.jsonl");
  }
  expect(t.entry("log.jsonl").extents.length).toBeLessThan(60);
  // Each byte some three times at most, and what a commit says of itself.
  expect(sentBytes).toBeLessThan(1_000 * (3 * KIB + 4 * KIB));
  await t.verify();
  const contents = new Contents(t.memory);
  for (const position of [2, 33, 34, 500, 777, 1_001]) {
    const { commit } = await readCommit(t.memory, position);
    const [entry] = commit.entries;
    if (entry?.type !== "file") throw new Error("no file");
    expect(entry.size).toBe((300 + position - 1) * KIB);
    expect(await hashIn(contents, entry)).toBe(entry.sha256);
  }
});

test("what is renamed, copied, put back or linked sends no content again", async () => {
  await using t = bench();
  const path = t.at("a.bin");
  writeFileSync(path, pseudoRandom(2 * MIB));
  await t.sync("a.bin");
  copyFileSync(path, t.at("before.bin"));
  expect(await t.sync("before.bin")).toBeLessThan(4 * KIB);
  appendFileSync(path, pseudoRandom(KIB, 2));
  await t.sync("a.bin");
  copyFileSync(path, t.at("copy.bin"));
  expect(await t.sync("copy.bin")).toBeLessThan(4 * KIB);
  renameSync(path, t.at("b.bin"));
  expect(await t.sync("a.bin", "b.bin")).toBeLessThan(4 * KIB);
  // Put back as it was at first.
  copyFileSync(t.at("before.bin"), t.at("b.bin"));
  expect(await t.sync("b.bin")).toBeLessThan(4 * KIB);
  // Of two names of one file the new bytes go once.
  linkSync(t.at("b.bin"), t.at("linked.bin"));
  await t.sync("linked.bin", "b.bin");
  appendFileSync(t.at("b.bin"), pseudoRandom(300 * KIB, 8));
  expect(await t.sync("linked.bin", "b.bin")).toBeLessThan(305 * KIB);
  await t.verify();
});

test("a file that is written to while it is read and sent is never recorded as what it was not", async () => {
  await using t = bench();
  const files = ["log", "random", "shrinks"];
  for (const name of files) writeFileSync(t.at(name), pseudoRandom(3 * MIB));
  await t.sync(...files);
  const writer = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const end = Date.now() + 4000;
       const pause = new Int32Array(new SharedArrayBuffer(4)); const fd = fs.openSync("random", "r+");
       for (let n = 0; Date.now() < end; n += 1) {
         fs.appendFileSync("log", "line " + n + " ".repeat(n % 3000));
         fs.writeSync(fd, Buffer.alloc(1 + (n * 37) % 9000, String(n)), 0, undefined, (n * 700_001) % 3_000_000);
         if (n % 50 === 0) fs.truncateSync("shrinks", 400_000 + (n * 9_973) % 2_000_000);
         fs.appendFileSync("shrinks", Buffer.alloc(n % 25 === 3 ? 700_000 : 10, String(n)));
         Atomics.wait(pause, 0, 0, 1);
       }`,
    ],
    { cwd: t.volume, stdout: "inherit", stderr: "inherit" },
  );
  let rounds = 0;
  while (writer.exitCode === null) {
    await t.commit(await t.read(...files));
    rounds += 1;
  }
  expect(await writer.exited).toBe(0);
  expect(rounds).toBeGreaterThan(3);
  await t.commit(await t.read(...files));
  await t.sync(...files);
  for (const name of files) expect(t.entry(name).sha256).toBe(sha256(readFileSync(t.at(name))));
  let deltas = 0;
  const contents = new Contents(t.memory);
  const head = t.index.head()?.position ?? 0;
  for (let position = 1; position <= head; position += 1) {
    const { commit } = await readCommit(t.memory, position);
    for (const entry of commit.entries) {
      if (entry.type !== "file") continue;
      expect(await hashIn(contents, entry)).toBe(entry.sha256);
      if (entry.extents.length > 1) deltas += 1;
    }
  }
  expect(deltas).toBeGreaterThan(0);
});

test("a restored machine goes on with deltas, and its files are those of the first", async () => {
  await using t = bench();
  writeFileSync(t.at("log"), pseudoRandom(4 * MIB));
  writeFileSync(t.at("small"), pseudoRandom(300 * KIB, 3));
  linkSync(t.at("small"), t.at("small too"));
  {
    using database = new Database(t.at("main.sqlite"), { create: true });
    database.run("CREATE TABLE t (x)");
    database.run(
      "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT randomblob(1000) FROM n",
    );
  }
  await t.sync("log", "small", "small too", "main.sqlite");
  for (let n = 1; n <= 5; n += 1) {
    appendFileSync(t.at("log"), pseudoRandom(n * 10 * KIB, n));
    overwrite(t.at("log"), n * 500 * KIB, Buffer.from("edited"));
    await t.sync("log");
  }
  using second = tempDir();
  using root = new Root(second.path);
  const outcome = await bootVolume(
    {
      root,
      user: "user-1",
      machine: "machine-2",
      store: t.memory,
      clock: systemClock,
      treeEqualsIndex: async () => false,
    },
    never,
  );
  if (outcome.state !== "ready" || !outcome.index) throw new Error(outcome.state);
  using index = outcome.index;
  expect(describeTree(second.path, TREE)).toEqual(describeTree(t.volume, TREE));
  for (const path of ["log", "small", "small too", "main.sqlite"]) {
    const { blocks } = t.index.get(path) ?? {};
    expect(blocks).toBeDefined();
    expect(index.get(path)?.blocks).toEqual(blocks);
  }
  using context = new ReadContext({ root, index, ignore: createIgnore(), clock: systemClock });
  appendFileSync(join(second.path, "log"), "more");
  appendFileSync(join(second.path, "small"), "more");
  for (const path of ["log", "small"]) {
    const reading = await readPath(path, context);
    if (reading.kind !== "changed") throw new Error(reading.kind);
    expect(reading.content).toMatchObject({ kind: "delta", fresh: { bytes: Buffer.from("more") } });
  }
});

test("the shell in the description of the format puts deltas, blobs, commits and parts together", async () => {
  await using t = bench();
  const path = "a \\ b\t'c\nd";
  writeFileSync(t.at(path), pseudoRandom(MIB));
  await t.sync(path);
  for (let n = 1; n <= 3; n += 1) {
    appendFileSync(t.at(path), `line ${n}\n`);
    overwrite(t.at(path), n * 200 * KIB, Buffer.from("edited"));
    await t.sync(path);
  }
  const { headers, entry } = { headers: t.index.headersAfter(0), entry: t.entry(path) };
  const header = headers.at(-1);
  if (!header) throw new Error("no commit");
  // As a checkpoint says it that has moved the first new bytes.
  const first = entry.extents.findIndex(({ commit }) => commit === 2);
  const { member, offset, length } = entry.extents[first] ?? {};
  const content = readFileSync(t.at(path));
  const before = entry.extents.slice(0, first).reduce((sum, extent) => sum + extent.length, 0);
  expect(member).toBe(`delta/${path}`);
  const bytes = Buffer.concat([Buffer.alloc(Number(offset)), content.subarray(before)]);
  const part = partKey(header.position, 1);
  const moved = { part, member: String(member), offset: Number(offset), length: Number(length) };
  const extents = entry.extents.toSpliced(first, 1, moved);
  const manifest = await encodeManifest({ ...header, entryCount: 1, commits: headers }, [
    { ...entry, extents },
  ]);
  const backup = join(t.dir.path, "store/users/u/backup");
  const write = (key: string, bytes: Uint8Array): void => {
    mkdirSync(join(backup, key, ".."), { recursive: true });
    writeFileSync(join(backup, key), bytes);
  };
  for (const key of t.memory.keys) write(key, await t.memory.get(key));
  const description = readFileSync(
    join(import.meta.dir, "../../../../docs/backup-format.md"),
    "utf8",
  );
  const [, shell = ""] = /```sh\n(.*?)```/s.exec(description) ?? [];
  const assigned = /^path=.*$/m;
  expect(shell).toMatch(assigned);
  const quoted = `path='${path.replaceAll("'", String.raw`'\''`)}'`;
  const env = { ...process.env, STORE: join(t.dir.path, "store"), USER_ID: "u" };
  const run = (): string => {
    const script = shell.replace(assigned, () => quoted);
    const { stdout, stderr } = Bun.spawnSync(["sh", "-euc", script], { env, stderr: "pipe" });
    expect(stderr.toString()).toBe("");
    expect(readFileSync(join(backup, "content")).equals(content)).toBe(true);
    return stdout.toString();
  };
  expect(run()).toBe("content: OK\n");
  write(part, await encodePart(new Map([[String(member), bytes]]), { timeMs: 0 }));
  write(keys.manifest(header.position), manifest);
  rmSync(join(backup, keys.commit(2)));
  expect(run()).toBe("content: OK\n");
});

test("a delta leaves no file open", async () => {
  await using t = bench();
  writeFileSync(t.at("log"), pseudoRandom(4 * MIB));
  await t.sync("log");
  const open = (): number => readdirSync("/proc/self/fd").length;
  const before = open();
  appendFileSync(t.at("log"), pseudoRandom(MIB, 2));
  await t.sync("log");
  appendFileSync(t.at("log"), "x");
  await t.sync("log");
  expect(open()).toBe(before);
});
