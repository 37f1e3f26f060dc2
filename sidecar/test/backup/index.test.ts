import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  keys,
  partKey,
  type CommitHeader,
  type Entry,
  type Extent,
} from "../../src/backup/format/format.ts";
import { IndexError } from "../../src/backup/index-schema.ts";
import { Index, type IndexedEntry } from "../../src/backup/index.ts";
import { UNRESTORED } from "../../src/backup/stamp.ts";
import { tempDir } from "../support/temp-dir.ts";

// The machine may be busy.
setDefaultTimeout(30_000);

function header(position: number, time = 1_000 + position): CommitHeader {
  return {
    format: 1,
    position,
    id: `commit-${position}`,
    user: "u",
    machine: "m",
    time,
    changed: 1,
    deletedCount: 0,
    bytes: 0,
  };
}

function file(path: string, rest: Partial<Extract<Entry, { type: "file" }>> = {}): Entry {
  const sha256 = new Bun.CryptoHasher("sha256").update(path).digest("hex");
  const extents = [{ blob: sha256, offset: 0, length: 3 }];
  return { type: "file", path, mode: 0o644, mtimeNs: "1", size: 3, sha256, extents, ...rest };
}

function item(path: string, rest: Partial<IndexedEntry> = {}): IndexedEntry {
  return { entry: file(path), stamp: `stamp of ${path}`, racy: false, ...rest };
}

function folder(path: string): IndexedEntry {
  return { entry: { type: "directory", path, mode: 0o755, mtimeNs: "1" }, stamp: "d", racy: false };
}

const paths = (index: Index) => [...index.all()].map(({ entry }) => entry.path);

test("Index gives back what was recorded, by path and by folder", () => {
  using index = new Index(":memory:");
  expect(index.head()).toBeUndefined();
  const sqlite = { ...item("a/x.db"), entry: file("a/x.db", { sqlite: true }) };
  const linked = item("a/b/y", { inode: "1:2", racy: true });
  index.record(header(1), { entries: [folder("a"), sqlite, folder("a/b"), linked], deleted: [] });
  expect(index.head()).toEqual({ position: 1, id: "commit-1", time: 1_001 });
  expect(index.get("a/b/y")).toEqual(linked);
  expect(index.get("a/b/z")).toBeUndefined();
  expect(index.children("")).toEqual([
    { name: "a", type: "directory", stamp: "d", racy: false, sqlite: false },
  ]);
  expect(index.children("a")).toEqual([
    { name: "b", type: "directory", stamp: "d", racy: false, sqlite: false },
    { name: "x.db", type: "file", stamp: "stamp of a/x.db", racy: false, sqlite: true },
  ]);
  expect(index.totals()).toEqual({ entries: 4, bytes: 6 });
});

test("Index knows the folders that it has entries of but not themselves", () => {
  using index = new Index(":memory:");
  expect([...index.strayFolders()]).toEqual([]);
  const names = ["a/x", "a/b/x", "c/x", "d/e/f/x", "top"];
  const entries = [folder("a"), item("c"), ...names.map((name) => item(name))];
  index.record(header(1), { entries, deleted: [] });
  expect([...index.strayFolders()]).toEqual(["a/b", "c", "d/e/f"]);
});

test("Index removes a folder with all below it and nothing beside it", () => {
  using index = new Index(":memory:");
  const names = ["a", "a/b", "a/b/c", "a-b", "a-b/c", "a0", "a0/x", "a.x", "aä/x", "a/%", "a/_"];
  index.record(header(1), { entries: names.map((name) => item(name)), deleted: [] });
  expect(index.countBelow("a")).toBe(5);
  index.record(header(2), { entries: [], deleted: ["a"] });
  expect(paths(index).sort()).toEqual(["a-b", "a-b/c", "a.x", "a0", "a0/x", "aä/x"].sort());
  index.record(header(3), { entries: [item("a0")], deleted: ["a0"] });
  expect(index.countBelow("a0")).toBe(1);
});

test.each(["with space", "new\nline", "ümlaut", "\u{1F600}", "quote'\"", "back\\slash", "%_*?"])(
  "Index keeps the name %j",
  (name) => {
    using index = new Index(":memory:");
    index.record(header(1), { entries: [item(name), item(`${name}/${name}`)], deleted: [] });
    expect(index.get(name)?.entry.path).toBe(name);
    expect(index.children(name).map((child) => child.name)).toEqual([name]);
    index.record(header(2), { entries: [], deleted: [name] });
    expect(index.totals().entries).toBe(0);
  },
);

test("Index knows where the store has a content, also when no path has it any more", () => {
  using index = new Index(":memory:");
  const { entry } = item("a");
  if (entry.type !== "file") throw new Error("type");
  index.record(header(1), { entries: [item("a")], deleted: [] });
  expect(index.locate(entry.sha256)).toEqual(entry.extents);
  index.record(header(2), { entries: [], deleted: ["a"] });
  expect(index.locate(entry.sha256)).toEqual(entry.extents);
  expect(index.locate("0".repeat(64))).toBeUndefined();
});

test("Index names the group of an inode by its first path, as long as any is left", () => {
  using index = new Index(":memory:");
  const b = { ...item("b", { inode: "1:2" }), entry: file("b", { hardlink: "b" }) };
  const c = { ...item("c", { inode: "1:2" }), entry: file("c", { hardlink: "b" }) };
  index.record(header(1), { entries: [c, b], deleted: [] });
  expect(index.linkGroup("1:2")).toBe("b");
  index.record(header(2), { entries: [], deleted: ["b"] });
  expect(index.linkGroup("1:2")).toBe("b");
  index.record(header(3), { entries: [item("c")], deleted: [] });
  expect(index.linkGroup("1:2")).toBeUndefined();
});

test("Index knows its own attempts until their position is recorded", () => {
  using index = new Index(":memory:");
  index.addAttempt(1, "commit-a");
  index.addAttempt(1, "commit-b");
  index.addAttempt(1, "commit-b");
  index.addAttempt(2, "commit-c");
  expect(index.isAttempt(1, "commit-a")).toBe(true);
  expect(index.isAttempt(1, "commit-b")).toBe(true);
  expect(index.isAttempt(2, "commit-a")).toBe(false);
  index.record(header(1), { entries: [], deleted: [] });
  expect(index.isAttempt(1, "commit-a")).toBe(false);
  expect(index.isAttempt(2, "commit-c")).toBe(true);
});

test("Index keeps the headers since the last checkpoint", () => {
  using index = new Index(":memory:");
  for (const position of [1, 2, 3, 4]) {
    index.record(header(position), { entries: [], deleted: [] });
  }
  expect(index.headersAfter(2).map(({ position }) => position)).toEqual([3, 4]);
  expect(index.checkpoint()).toBeUndefined();
  index.setCheckpoint({ position: 3, time: 9 });
  expect(index.checkpoint()).toEqual({ position: 3, time: 9 });
  expect(index.headersAfter(0).map(({ position }) => position)).toEqual([4]);
});

test("Index takes over new stamps without a commit", () => {
  using index = new Index(":memory:");
  index.record(header(1), { entries: [item("a", { racy: true })], deleted: [] });
  index.restamp([item("a", { stamp: "new" })]);
  expect(index.get("a")).toMatchObject({ stamp: "new", racy: false });
  expect(index.head()?.position).toBe(1);
});

test("Index forgets everything when it is filled anew", () => {
  using index = new Index(":memory:");
  index.record(header(1), { entries: [item("old")], deleted: [] });
  index.addAttempt(2, "commit-x");
  index.setCheckpoint({ position: 1, time: 1 });
  const head = { position: 7, id: "commit-7", time: 7 };
  // oxlint-disable-next-line unicorn/no-array-fill-with-reference-type -- this is no array
  index.fill({ head, checkpoint: undefined, headers: [header(7)], entries: [item("new")] });
  expect(paths(index)).toEqual(["new"]);
  expect(index.head()).toEqual(head);
  expect(index.checkpoint()).toBeUndefined();
  expect(index.isAttempt(2, "commit-x")).toBe(false);
  expect(index.headersAfter(0).map(({ position }) => position)).toEqual([7]);
});

test("Index records all of a commit or nothing", () => {
  using index = new Index(":memory:");
  index.record(header(1), { entries: [item("a")], deleted: [] });
  const broken = { ...item("b"), stamp: undefined as unknown as string };
  expect(() => index.record(header(2), { entries: [item("c"), broken], deleted: ["a"] })).toThrow();
  expect(paths(index)).toEqual(["a"]);
  expect(index.head()?.position).toBe(1);
});

test("Index survives being killed at any moment", async () => {
  using dir = tempDir();
  const path = join(dir.path, "index.sqlite");
  const modules = join(import.meta.dir, "../../src/backup");
  const script = `
    import { writeSync } from "node:fs"; import { Index } from ${JSON.stringify(`${modules}/index.ts`)};
    const index = new Index(${JSON.stringify(path)});
    for (let position = (index.head()?.position ?? 0) + 1; ; position += 1) {
      const entries = [1, 2, 3].map((n) => ({ entry: { type: "directory", path: "p" + position + "-" + n, mode: 0, mtimeNs: "1" }, stamp: "s", racy: false }));
      index.record({ format: 1, position, id: "commit-" + position, user: "u", machine: "m", time: position, changed: 3, deletedCount: 0, bytes: 0 }, { entries, deleted: [] });
      writeSync(1, position + "\\n");
    }`;
  let acknowledged = 0;
  for (let round = 0; round < 5; round += 1) {
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    let text = "";
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk);
      if (text.split("\n").length > 4 + round * 3) child.kill("SIGKILL");
    }
    await child.exited;
    acknowledged = Number(text.split("\n").slice(0, -1).at(-1));
    using index = new Index(path);
    const position = index.head()?.position ?? 0;
    expect(position).toBeGreaterThanOrEqual(acknowledged);
    expect(index.totals().entries).toBe(3 * position);
  }
});

test("Index can be read by another while it is written", () => {
  using dir = tempDir();
  const path = join(dir.path, "index.sqlite");
  using index = new Index(path);
  using reader = new Index(path, { readonly: true });
  index.record(header(1), { entries: [item("a")], deleted: [] });
  expect(reader.children("").map(({ name }) => name)).toEqual(["a"]);
  expect(() => reader.record(header(2), { entries: [], deleted: [] })).toThrow();
});

test("Index says that it is damaged", () => {
  using dir = tempDir();
  const path = join(dir.path, "index.sqlite");
  writeFileSync(path, "this is no database, but long enough to be taken for one".repeat(100));
  expect(() => new Index(path)).toThrow(IndexError);
  try {
    using _ = new Index(path);
  } catch (error) {
    expect(error).toMatchObject({ kind: "corrupt", message: expect.stringContaining(path) });
  }
});

test("Index made by a newer sidecar is refused", () => {
  using dir = tempDir();
  const path = join(dir.path, "index.sqlite");
  new Index(path)[Symbol.dispose]();
  {
    using database = new Database(path);
    database.run("PRAGMA user_version = 99");
  }
  copyFileSync(path, `${path}.before`);
  expect(() => new Index(path)).toThrow("start the newer image again");
});

test("Index filled gradually is the same as filled at once, and as before where that fails", async () => {
  using dir = tempDir();
  const tree = {
    head: { position: 7, id: "commit-7", time: 1_007 },
    checkpoint: { position: 5, time: 1_005 },
    headers: [header(6), header(7)],
    entries: Array.from({ length: 350 }, (_, n) => item(`folder/${n}`)),
  };
  using whole = new Index(join(dir.path, "whole"));
  using gradual = new Index(join(dir.path, "gradual"));
  // oxlint-disable-next-line unicorn/no-array-fill-with-reference-type -- this is no array
  whole.fill(tree);
  await gradual.fillGradually(tree);
  expect([...gradual.all()]).toEqual([...whole.all()]);
  expect(gradual.head()).toEqual(whole.head());
  expect(gradual.headersAfter(5)).toEqual([header(6), header(7)]);
  function* failing() {
    yield item("first");
    throw new Error("the disk is gone");
  }
  await expect(gradual.fillGradually({ ...tree, entries: failing() })).rejects.toThrow("gone");
  expect([...gradual.all()]).toEqual([...whole.all()]);
});

test("Index does not rely on the content of what could not be restored", async () => {
  using index = new Index(":memory:");
  const lost = item("lost", { stamp: UNRESTORED });
  await index.fillGradually({
    head: undefined,
    checkpoint: undefined,
    headers: [],
    entries: [lost, item("a/b")],
  });
  expect(index.unrestored()).toEqual(["lost"]);
  expect(index.get("lost")).toEqual(lost);
  expect(index.locate(hashOf(lost))).toBeUndefined();
  expect(index.locate(hashOf(item("a/b")))).toBeDefined();
});

test("Index leaves nothing open when it is closed", async () => {
  using dir = tempDir();
  {
    using index = new Index(join(dir.path, "index"));
    const entries = [item("a")];
    await index.fillGradually({ head: undefined, checkpoint: undefined, headers: [], entries });
    index.head();
    index.children("");
  }
  expect(readdirSync(dir.path)).toEqual(["index"]);
});

test("Index keeps the blocks of a content until it is another one", () => {
  using index = new Index(":memory:");
  const blocks = new Uint8Array([1, 2, 3]);
  index.record(header(1), { entries: [item("a", { blocks })], deleted: [] });
  expect(index.get("a")?.blocks).toEqual(blocks);
  expect([...index.all()][0]).not.toHaveProperty("blocks");
  index.restamp([item("a", { stamp: "new" })]);
  expect(index.get("a")).toMatchObject({ stamp: "new", blocks });
  index.restamp([item("a", { blocks: new Uint8Array([4]) })]);
  expect(index.get("a")?.blocks).toEqual(new Uint8Array([4]));
  const other = file("a", { sha256: "1".repeat(64) });
  index.record(header(2), { entries: [{ ...item("a"), entry: other }], deleted: [] });
  expect(index.get("a")).not.toHaveProperty("blocks");
});

function pieces(count: number): Extent[] {
  return Array.from({ length: count }, (_, n) => ({
    commit: n + 1,
    member: "delta/x",
    offset: 0,
    length: 1,
  }));
}

test("Index knows the place of content in many pieces as long as a path has it", () => {
  using index = new Index(":memory:");
  const few = file("few", { size: 8, extents: pieces(8) });
  const many = file("many", { size: 9, extents: pieces(9) });
  const lost = file("lost", { size: 9, extents: pieces(9) });
  const entries = [few, many].map((entry) => ({ entry, stamp: "s", racy: false }));
  index.record(header(1), { entries, deleted: [] });
  index.restamp([{ entry: lost, stamp: UNRESTORED, racy: false }]);
  expect(index.locate(hashOf({ entry: few }))).toEqual(pieces(8));
  expect(index.locate(hashOf({ entry: many }))).toEqual(pieces(9));
  expect(index.locate(hashOf({ entry: lost }))).toBeUndefined();
  index.record(header(2), { entries: [], deleted: ["few", "many"] });
  expect(index.locate(hashOf({ entry: few }))).toEqual(pieces(8));
  expect(index.locate(hashOf({ entry: many }))).toBeUndefined();
});

test("Index knows which objects commits after a position point into", () => {
  using index = new Index(":memory:");
  const referenced = (position: number) => [...index.referencedAfter(position)].sort();
  const at = (path: string, extents: Extent[]) => ({
    ...item(path),
    entry: file(path, { extents }),
  });
  const part = { part: partKey(40, 1), member: "data/x", offset: 0, length: 1 };
  expect(index.referencesFrom()).toBe(0);
  index.record(header(1), { entries: [at("a", pieces(2)), at("b", [part])], deleted: [] });
  index.record(header(2), { entries: [at("c", pieces(1)), folder("d")], deleted: ["a"] });
  index.record(header(3), { entries: [item("e")], deleted: [] });
  const blob = keys.blob(hashOf(item("e")));
  expect(referenced(0)).toEqual([blob, partKey(40, 1), keys.commit(1), keys.commit(2)].sort());
  expect(referenced(1)).toEqual([blob, keys.commit(1)]);
  expect(referenced(2)).toEqual([blob]);
  expect(referenced(3)).toEqual([]);
  index.forgetReferences(1);
  expect(index.referencesFrom()).toBe(1);
  expect(referenced(0)).toEqual([blob, keys.commit(1)]);
  index.forgetReferences(0);
  expect(index.referencesFrom()).toBe(1);
  const head = { position: 7, id: "commit-7", time: 7 };
  // oxlint-disable-next-line unicorn/no-array-fill-with-reference-type -- this is no array
  index.fill({ head, checkpoint: undefined, headers: [], entries: [item("e")] });
  expect(index.referencesFrom()).toBe(7);
  expect(referenced(0)).toEqual([]);
});

test("Index takes it that content was moved, for every path and for what is only known", () => {
  using index = new Index(":memory:");
  const blocks = new Uint8Array([1]);
  const sha256 = "2".repeat(64);
  const twice = ["a", "b/c"].map((path) => ({
    ...item(path, { blocks }),
    entry: file(path, { sha256, extents: pieces(3) }),
  }));
  index.record(header(1), { entries: [...twice, item("gone"), item("other")], deleted: [] });
  index.record(header(2), { entries: [], deleted: ["gone"] });
  const moved = [{ part: partKey(2, 1), member: "data/a", offset: 0, length: 3 }];
  index.relocate(
    new Map([
      [sha256, moved],
      [hashOf(item("gone")), pieces(3)],
    ]),
  );
  expect(index.get("a")).toMatchObject({ entry: { extents: moved }, blocks, stamp: "stamp of a" });
  expect(index.get("b/c")?.entry).toMatchObject({ extents: moved });
  expect(index.get("other")).toEqual(item("other"));
  expect(index.locate(sha256)).toEqual(moved);
  expect(index.locate(hashOf(item("gone")))).toEqual(pieces(3));
  index.relocate(new Map([[sha256, pieces(9)]]));
  expect(index.locate(sha256)).toEqual(pieces(9));
  index.record(header(3), { entries: [], deleted: ["a", "b"] });
  expect(index.locate(sha256)).toBeUndefined();
});

test("Index forgets content in doomed objects alone", async () => {
  using index = new Index(":memory:");
  const names = Array.from({ length: 1_200 }, (_, n) => `f${n}`);
  index.record(header(1), { entries: names.map((name) => item(name)), deleted: [] });
  const moved = { ...item("moved"), entry: file("moved", { sha256: hashOf(item("f9")) }) };
  index.record(header(2), { entries: [moved], deleted: names });
  const spared = new Set(["f3", "f9", "f700"]);
  const objects = new Set([...spared].map((name) => keys.blob(hashOf(item(name)))));
  await index.forgetContents((key) => !objects.has(key));
  expect(new Set(names.filter((name) => index.locate(hashOf(item(name)))))).toEqual(spared);
  expect(index.get("moved")).toEqual(moved);
  await expect(index.forgetContents(() => true, AbortSignal.abort())).rejects.toThrow();
});

test("Index of version 1 is brought forward", () => {
  using dir = tempDir();
  const path = join(dir.path, "index.sqlite");
  {
    using index = new Index(path);
    index.record(header(5), { entries: [item("a")], deleted: [] });
  }
  {
    using database = new Database(path);
    database.run("DROP TABLE objects");
    database.run("DROP INDEX entries_in_pieces");
    database.run("ALTER TABLE entries DROP COLUMN extents");
    database.run("ALTER TABLE entries DROP COLUMN blocks");
    database.run("PRAGMA user_version = 1");
  }
  expect(() => new Index(path, { readonly: true })).toThrow("older sidecar");
  using index = new Index(path);
  expect(index.get("a")).toEqual(item("a"));
  expect(index.referencesFrom()).toBe(5);
  index.record(header(6), { entries: [item("b", { blocks: new Uint8Array([7]) })], deleted: [] });
  expect(index.get("b")?.blocks).toEqual(new Uint8Array([7]));
  expect([...index.referencedAfter(5)]).toEqual([keys.blob(hashOf(item("b")))]);
});

function hashOf({ entry }: Pick<IndexedEntry, "entry">): string {
  return entry.type === "file" ? entry.sha256 : "";
}
