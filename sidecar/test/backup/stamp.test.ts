import { expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  renameSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { databaseOf, databaseStamp, stampOf } from "../../src/backup/stamp.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

function stampAt(path: string): string | undefined {
  return stampOf(lstatSync(path, { bigint: true }));
}

test.each<[what: string, change: (path: string) => void]>([
  ["appending", (path) => appendFileSync(path, "x")],
  ["a mode", (path) => chmodSync(path, 0o600)],
  ["a second name", (path) => linkSync(path, `${path}.2`)],
  [
    "another file of the same size and times",
    (path) => {
      const { atime, mtime } = lstatSync(path);
      writeFileSync(`${path}.new`, "other");
      utimesSync(`${path}.new`, atime, mtime);
      renameSync(`${path}.new`, path);
    },
  ],
  [
    "the same size with its time put back",
    (path) => {
      const { atime, mtime } = lstatSync(path);
      writeFileSync(path, "OTHER");
      utimesSync(path, atime, mtime);
    },
  ],
])("stampOf a file changes with %s", async (_what, change) => {
  using dir = tempDir();
  const path = join(dir.path, "file");
  writeFileSync(path, "bytes");
  chmodSync(path, 0o644);
  const before = stampAt(path);
  expect(stampAt(path)).toBe(before);
  await nextTick(dir.path);
  change(path);
  expect(stampAt(path)).not.toBe(before);
});

test("stampOf a folder changes with its names and mode, not with what is in its files", async () => {
  using dir = tempDir();
  const path = join(dir.path, "folder");
  mkdirSync(path);
  writeFileSync(join(path, "a"), "1");
  const before = stampAt(path);
  appendFileSync(join(path, "a"), "2");
  expect(stampAt(path)).toBe(before);
  await nextTick(dir.path);
  writeFileSync(join(path, "b"), "1");
  const later = stampAt(path);
  expect(later).not.toBe(before);
  chmodSync(path, 0o700);
  expect(stampAt(path)).not.toBe(later);
});

test("stampOf tells a file, a folder and a link apart, and has none for the rest", () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "file"), "");
  symlinkSync("file", join(dir.path, "link"));
  expect(stampAt(join(dir.path, "file"))).toStartWith("f:");
  expect(stampAt(dir.path)).toStartWith("d:");
  expect(stampAt(join(dir.path, "link"))).toStartWith("l:");
  expect(stampAt("/dev/null")).toBeUndefined();
});

test("databaseStamp changes with either file", () => {
  const stamps = [
    databaseStamp("a", undefined),
    databaseStamp("a", "b"),
    databaseStamp("a", "c"),
    databaseStamp("d", "b"),
  ];
  expect(new Set(stamps).size).toBe(4);
});

test.each([
  ["a.sqlite-wal", "a.sqlite"],
  ["a-shm", "a"],
  ["a.db-journal", "a.db"],
  ["a-wal-wal", "a-wal"],
  ["line\nbreak-wal", "line\nbreak"],
  ["a.wal", undefined],
  ["-wal", undefined],
  ["a.sqlite", undefined],
])("databaseOf %j is %j", (name, database) => {
  expect(databaseOf(name)).toBe(database);
});

/** Waits until the file system's clock has moved on: two changes within its granularity have the same time. */
async function nextTick(folder: string): Promise<void> {
  const probe = join(folder, "probe");
  writeFileSync(probe, "");
  const { ctimeNs } = lstatSync(probe, { bigint: true });
  await until(() => {
    writeFileSync(probe, "");
    return lstatSync(probe, { bigint: true }).ctimeNs > ctimeNs;
  }, "the file system's clock to move on");
}
