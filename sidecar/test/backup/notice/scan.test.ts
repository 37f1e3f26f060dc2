import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import * as fc from "fast-check";

import type { IndexedChild } from "../../../src/backup/index.ts";
import { createIgnore, type Ignore } from "../../../src/backup/notice/ignore.ts";
import { scan, type ScanOptions, type ScanResult } from "../../../src/backup/notice/scan.ts";
import { UNRESTORED, databaseStamp, logStampOf, stampOf } from "../../../src/backup/stamp.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { Root } from "../../../src/volume/root.ts";
import { VolumeError } from "../../../src/volume/volume-error.ts";
import { tempDir } from "../../support/temp-dir.ts";

// The machine may be busy.
setDefaultTimeout(30_000);

/** An index that is a map, filled by looking at the disk in the plainest way. */
class MapIndex {
  readonly rows = new Map<string, IndexedChild>();

  children(dir: string): IndexedChild[] {
    return [...this.rows].filter(([path]) => parent(path) === dir).map(([, row]) => row);
  }

  strayFolders(): string[] {
    const folders = new Set([...this.rows.keys()].map(parent));
    folders.delete("");
    return [...folders].filter((path) => this.rows.get(path)?.type !== "directory");
  }

  fill(root: string, ignore: Ignore = createIgnore()): void {
    this.rows.clear();
    walk(root, (path, stat) => {
      const stamp = stampOf(stat);
      if (stamp === undefined || ignore.covers(path, stat.isDirectory())) return;
      const type = stat.isDirectory() ? "directory" : stat.isFile() ? "file" : "symlink";
      this.set(path, { type, stamp });
    });
  }

  set(path: string, row: Partial<IndexedChild>): void {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const base = { name, type: "file" as const, stamp: "", racy: false, sqlite: false };
    this.rows.set(path, { ...base, ...this.rows.get(path), ...row });
  }
}

function parent(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function walk(
  root: string,
  visit: (path: string, stat: ReturnType<typeof big>) => void,
  below = "",
): void {
  for (const name of readdirSync(join(root, below))) {
    const path = below === "" ? name : `${below}/${name}`;
    const stat = big(join(root, path));
    visit(path, stat);
    if (stat.isDirectory()) walk(root, visit, path);
  }
}

function big(path: string) {
  return lstatSync(path, { bigint: true });
}

interface Scanned {
  readonly result: ScanResult;
  readonly changed: string[];
  readonly gone: string[];
}

function scanned(
  path: string,
  options: Partial<ScanOptions> & Pick<ScanOptions, "index">,
): Scanned {
  using root = new Root(path);
  const changed: string[] = [];
  const gone: string[] = [];
  const result = scan(root, {
    ignore: createIgnore(),
    clock: systemClock,
    onBatch: (batch) => {
      changed.push(...batch.changed);
      gone.push(...batch.gone);
    },
    ...options,
  });
  expect([result.changed, result.gone]).toEqual([changed.length, gone.length]);
  return { result, changed: changed.sort(), gone: gone.sort() };
}

test("scan finds everything new, and nothing once the index has it", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a/b"), { recursive: true });
  writeFileSync(join(dir.path, "a/b/file"), "x");
  symlinkSync("b", join(dir.path, "a/link"));
  const index = new MapIndex();
  const first = scanned(dir.path, { index });
  expect(first.changed).toEqual(["a", "a/b", "a/b/file", "a/link"]);
  expect(first.result).toMatchObject({ outcome: "complete", entries: 4, gone: 0 });
  index.fill(dir.path);
  expect(scanned(dir.path, { index }).result).toMatchObject({ changed: 0, gone: 0, entries: 4 });
  index.set("a/b/file", { racy: true });
  expect(scanned(dir.path, { index }).changed).toEqual(["a/b/file"]);
});

test("scan finds what any operations changed, as a plain comparison does", () => {
  const name = fc.constantFrom("a", "b", "c", "d-wal", "ä", "e.log");
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
  const operation = fc.oneof(
    fc.record({ do: fc.constant("write" as const), path, text: fc.string({ maxLength: 3 }) }),
    fc.record({ do: fc.constant("mkdir" as const), path }),
    fc.record({ do: fc.constant("remove" as const), path }),
    fc.record({ do: fc.constant("link" as const), path, text: fc.constantFrom("a", "../x") }),
    fc.record({ do: fc.constant("move" as const), path, to: path }),
    fc.record({ do: fc.constant("touch" as const), path }),
  );
  const apply = (
    root: string,
    step: typeof operation extends fc.Arbitrary<infer T> ? T : never,
  ) => {
    const at = join(root, step.path);
    try {
      if (step.do === "write") writeFileSync(at, step.text);
      else if (step.do === "mkdir") mkdirSync(at, { recursive: true });
      else if (step.do === "remove") rmSync(at, { recursive: true, force: true });
      else if (step.do === "link") symlinkSync(step.text, at);
      else if (step.do === "move") renameSync(at, join(root, step.to));
      else utimesSync(at, 1, Math.random() * 1e6);
    } catch {
      // What is not possible changes nothing.
    }
  };
  const ignore = createIgnore();
  fc.assert(
    fc.property(
      fc.array(operation, { maxLength: 25 }),
      fc.array(operation, { maxLength: 25 }),
      (before, after) => {
        using dir = tempDir();
        const volume = join(dir.path, "workspace");
        mkdirSync(volume);
        writeFileSync(join(dir.path, "keep"), "");
        for (const step of before) apply(volume, step);
        const index = new MapIndex();
        index.fill(dir.path);
        const was = new Map(index.rows);
        for (const step of after) apply(volume, step);
        index.fill(dir.path);
        const is = new Map(index.rows);
        index.rows.clear();
        for (const [path, row] of was) index.rows.set(path, row);
        const changed = [...is.keys()].filter(
          (path) => was.get(path)?.stamp !== is.get(path)?.stamp,
        );
        const gone = [...was.keys()].filter((path) => !is.has(path));
        const found = scanned(dir.path, { index, ignore });
        expect(found.changed).toEqual(changed.sort());
        // A folder stands for all that was in it.
        const covers = (path: string) =>
          found.gone.some((top) => path === top || path.startsWith(`${top}/`));
        expect(gone.filter((path) => !covers(path))).toEqual([]);
        expect(found.gone.filter((path) => is.has(path))).toEqual([]);
        expect(found.gone.every((path) => was.has(path))).toBe(true);
      },
    ),
    { numRuns: 150 },
  );
});

test("scan of one folder sees that folder alone", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a/b"), { recursive: true });
  writeFileSync(join(dir.path, "a/b/file"), "x");
  writeFileSync(join(dir.path, "other"), "x");
  const index = new MapIndex();
  expect(scanned(dir.path, { index, path: "a/b" }).changed).toEqual(["a/b", "a/b/file"]);
  index.fill(dir.path);
  rmSync(join(dir.path, "a/b"), { recursive: true });
  expect(scanned(dir.path, { index, path: "a/b" })).toMatchObject({ changed: [], gone: ["a/b"] });
  writeFileSync(join(dir.path, "a/b"), "a file now");
  expect(scanned(dir.path, { index, path: "a/b" })).toMatchObject({
    changed: ["a/b"],
    gone: ["a/b/file"],
  });
});

test("scan of a folder that a link leads to looks nowhere", () => {
  using dir = tempDir();
  using outside = tempDir();
  writeFileSync(join(outside.path, "secret"), "x");
  symlinkSync(outside.path, join(dir.path, "link"));
  const index = new MapIndex();
  expect(scanned(dir.path, { index, path: "link" }).changed).toEqual(["link"]);
  expect(scanned(dir.path, { index }).changed).toEqual(["link"]);
});

test("scan says that a folder is gone where a file is now, by what was in it", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a"));
  writeFileSync(join(dir.path, "a/x"), "");
  const index = new MapIndex();
  index.fill(dir.path);
  rmSync(join(dir.path, "a"), { recursive: true });
  writeFileSync(join(dir.path, "a"), "");
  expect(scanned(dir.path, { index })).toMatchObject({ changed: ["a"], gone: ["a/x"] });
});

test("scan finds what was in a folder that came and went between two scans", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a"));
  const index = new MapIndex();
  index.fill(dir.path);
  index.set("a/b/file", {});
  index.set("a/b/c/file", {});
  index.set("a/d/file", {});
  index.set("a/b/lost", { stamp: UNRESTORED });
  mkdirSync(join(dir.path, "a/d"));
  writeFileSync(join(dir.path, "a/e"), "");
  index.set("a/e/file", {});
  expect(scanned(dir.path, { index }).gone).toEqual([
    "a/b/c/file",
    "a/b/file",
    "a/d/file",
    "a/e/file",
  ]);
});

test("scan folds a database's log into the database", () => {
  using dir = tempDir();
  const path = join(dir.path, "x.db");
  const index = new MapIndex();
  using db = new Database(path, { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("CREATE TABLE t (a)");
  expect(scanned(dir.path, { index }).changed).toEqual(["x.db"]);
  const stamp = () => databaseStamp(stampOf(big(path)) ?? "", logStampOf(big(`${path}-wal`)));
  index.set("x.db", { sqlite: true, stamp: stamp() });
  expect(scanned(dir.path, { index }).changed).toEqual([]);
  db.run("INSERT INTO t VALUES (1)");
  expect(scanned(dir.path, { index }).changed).toEqual(["x.db"]);
});

test("scan takes -wal and -journal beside anything else for files", () => {
  using dir = tempDir();
  for (const name of ["a", "a-wal", "b-shm", "c-journal"]) writeFileSync(join(dir.path, name), "x");
  const names = ["a", "a-wal", "b-shm", "c-journal"];
  expect(scanned(dir.path, { index: new MapIndex() }).changed).toEqual(names);
});

test("scan looks into a folder that is named like the log of a database", () => {
  using dir = tempDir();
  using db = new Database(join(dir.path, "x.db"), { create: true });
  db.run("CREATE TABLE t (a)");
  mkdirSync(join(dir.path, "x.db-journal"));
  writeFileSync(join(dir.path, "x.db-journal", "monday.md"), "x");
  const { changed } = scanned(dir.path, { index: new MapIndex() });
  expect(changed).toEqual(["x.db", "x.db-journal", "x.db-journal/monday.md"]);
});

test("scan counts what is ignored, and takes it for gone where the index has it", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "workspace/node_modules/x"), { recursive: true });
  writeFileSync(join(dir.path, ".last-sync"), "");
  const socket = Bun.listen({ unix: join(dir.path, "socket"), socket: { data: () => undefined } });
  const index = new MapIndex();
  index.set("workspace", { type: "directory" });
  index.set("workspace/node_modules", { type: "directory" });
  const { result, gone } = scanned(dir.path, { index });
  socket.stop(true);
  expect(result.ignored).toEqual({ folders: 1, files: 1, special: 1 });
  expect(gone).toEqual(["workspace/node_modules"]);
});

test("scan reports names that are not UTF-8, and takes U+FFFD itself for a name", () => {
  using dir = tempDir();
  writeFileSync(Buffer.concat([Buffer.from(`${dir.path}/bad`), Buffer.from([0xff])]), "");
  writeFileSync(join(dir.path, "good\uFFFD"), "");
  const { result, changed } = scanned(dir.path, { index: new MapIndex() });
  expect(changed).toEqual(["good\uFFFD"]);
  expect(result.skipped).toEqual([{ path: "bad\uFFFD", reason: "bad_name" }]);
});

test("scan reports what is too deep to be read", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "d/".repeat(300)), { recursive: true });
  const { result } = scanned(dir.path, { index: new MapIndex() });
  expect(result.outcome).toBe("complete");
  expect(result.skipped).toEqual([{ path: "d/".repeat(256).slice(0, -1), reason: "bad_name" }]);
});

test("scan says that the volume was emptied, and takes nothing for gone", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, ".sidecar"));
  mkdirSync(join(dir.path, "lost+found"));
  const index = new MapIndex();
  expect(scanned(dir.path, { index }).result.outcome).toBe("complete");
  index.set("a", {});
  expect(scanned(dir.path, { index })).toMatchObject({ result: { outcome: "emptied" }, gone: [] });
});

test("scan can be cancelled between two folders", () => {
  using dir = tempDir();
  for (let i = 0; i < 10; i += 1) mkdirSync(join(dir.path, String(i)));
  let asked = 0;
  const { result } = scanned(dir.path, { index: new MapIndex(), cancelled: () => ++asked > 3 });
  expect(result.outcome).toBe("cancelled");
  expect(asked).toBe(4);
});

test.each<[kind: "denied" | "failing" | "missing", outcome: string, gone: string[]]>([
  ["denied", "complete", []],
  ["missing", "complete", []],
  ["failing", "failing", []],
])("scan below a folder that is %s takes nothing for gone", (kind, outcome, gone) => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a/b"), { recursive: true });
  writeFileSync(join(dir.path, "a/b/file"), "x");
  const index = new MapIndex();
  index.fill(dir.path);
  const broken = {
    strayFolders: () => index.strayFolders(),
    children(path: string): IndexedChild[] {
      // Where the rows are asked for is where the folder is about to be listed.
      if (path === "a/b") throw new VolumeError(kind, `Cannot list "a/b": test`);
      return index.children(path);
    },
  };
  const found = scanned(dir.path, { index: broken });
  expect(found.result.outcome as string).toBe(outcome);
  expect(found.gone).toEqual(gone);
  if (kind === "denied") expect(found.result.errors).toMatchObject([{ path: "a/b" }]);
});

test("scan names unfinished files that a kill left behind, but not those of a write that may be going on", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "workspace"));
  const old = `workspace/.sidecar-tmp-${"0".repeat(24)}`;
  const others = [`workspace/.sidecar-tmp-${"1".repeat(24)}`, "workspace/.sidecar-tmp-notes"];
  for (const path of [old, ...others]) writeFileSync(join(dir.path, path), "half");
  for (const path of [old, others[1] ?? ""]) utimesSync(join(dir.path, path), 1_000, 1_000);
  const { result, changed } = scanned(dir.path, { index: new MapIndex() });
  expect(result.leftovers).toEqual([old]);
  // A name that only begins so is somebody's own.
  expect(changed).toEqual(["workspace", "workspace/.sidecar-tmp-notes"]);
});

test("scan reports a folder that it may not list, and calls nothing in it gone", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a"));
  chmodSync(join(dir.path, "a"), 0);
  const modules = join(import.meta.dir, "../../../src");
  const script = `
    const load = (name) => import(${JSON.stringify(modules)} + "/" + name);
    const { Root } = await load("volume/root.ts"), { scan } = await load("backup/notice/scan.ts");
    const { createIgnore } = await load("backup/notice/ignore.ts"), { systemClock: clock } = await load("platform/clock.ts");
    const row = (name, type) => ({ name, type, stamp: "", racy: false, sqlite: false });
    const index = { strayFolders: () => [], children: (path) => path === "" ? [row("a", "directory")] : [row("x", "file")] };
    const gone = [];
    const root = new Root(${JSON.stringify(dir.path)});
    const result = scan(root, { index, ignore: createIgnore(), clock, onBatch: (batch) => gone.push(...batch.gone) });
    console.log(JSON.stringify({ gone, errors: result.errors.map(({ path }) => path) }));`;
  // Root may list everything, unless it gives that right away.
  const rights = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
  const command = [...(process.getuid?.() === 0 ? rights : []), process.execPath, "-e", script];
  const { stdout, stderr } = Bun.spawnSync(command);
  chmodSync(join(dir.path, "a"), 0o700);
  expect(stderr.toString()).toBe("");
  expect(JSON.parse(stdout.toString())).toEqual({ gone: [], errors: ["a"] });
});

test("scan does not cross into another file system", () => {
  // /dev holds several mounts of its own on any Linux machine.
  const index = new MapIndex();
  const { result } = scanned("/dev", { index });
  const other = result.skipped.filter(({ reason }) => reason === "other_mount");
  const mounts = ["pts", "shm", "mqueue"].filter(
    (name) => existsSync(`/dev/${name}`) && big(`/dev/${name}`).dev !== big("/dev").dev,
  );
  expect(other.map(({ path }) => path)).toEqual(expect.arrayContaining(mounts));
});
