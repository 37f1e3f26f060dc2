import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { FolderDatabases } from "../../../src/backup/notice/folder-databases.ts";
import { hasSqliteHeader, isHotJournal, logOf } from "../../../src/backup/notice/sqlite-file.ts";
import type { Dir } from "../../../src/volume/dir.ts";
import { Root } from "../../../src/volume/root.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** A folder with a database, opened. */
function folder() {
  const temp = tempDir();
  using database = new Database(join(temp.path, "x.db"), { create: true });
  database.run("CREATE TABLE t (a)");
  const root = new Root(temp.path);
  const dir = root.dir("");
  return {
    path: temp.path,
    dir,
    [Symbol.dispose]() {
      dir[Symbol.dispose]();
      root[Symbol.dispose]();
      temp[Symbol.dispose]();
    },
  };
}

/** The same folder in a process that has no descriptors left. */
function withoutDescriptors(dir: Dir): Dir {
  const openFile = (): never => {
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  };
  return Object.assign(Object.create(dir) as Dir, { openFile });
}

test("a database is not taken for a plain file where no descriptors are left to look at it", () => {
  using data = folder();
  expect(hasSqliteHeader(data.dir, "x.db")).toBe(true);
  writeFileSync(join(data.path, "x.db-wal"), "a log");
  const dir = withoutDescriptors(data.dir);
  expect(() => hasSqliteHeader(dir, "x.db")).toThrow("EMFILE");
  expect(() => isHotJournal(dir, "x.db-journal")).toThrow("EMFILE");
  const databases = new FolderDatabases(dir, ["x.db", "x.db-wal"], new Map());
  expect(() => databases.owns("x.db-wal")).toThrow("EMFILE");
});

test("what is no regular file is no database and no log of one", () => {
  using data = folder();
  mkdirSync(join(data.path, "folder"));
  symlinkSync("x.db", join(data.path, "link"));
  Bun.spawnSync(["mkfifo", join(data.path, "fifo")]);
  for (const name of ["folder", "link", "fifo", "missing"])
    expect([name, hasSqliteHeader(data.dir, name)]).toEqual([name, false]);
  Bun.spawnSync(["mkfifo", join(data.path, "x.db-wal")]);
  symlinkSync("/etc/passwd", join(data.path, "x.db-journal"));
  expect(logOf(data.dir, "x.db")).toBeUndefined();
});
