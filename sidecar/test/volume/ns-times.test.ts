import { expect, test } from "bun:test";
import { lstatSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { setTimes } from "../../src/volume/ns-times.ts";
import { Root } from "../../src/volume/root.ts";
import { syncFileSystem } from "../../src/volume/sync-file-system.ts";
import { tempDir } from "../support/temp-dir.ts";

test.each([
  ["file", 1_700_000_000_123_456_789n],
  ["folder", 1_600_000_000_000_000_001n],
  ["link", 1_500_000_000_999_999_999n],
  ["dangling", 3n],
  ["file", 0n],
  ["file", -1n],
  ["file", -1_500_000_001n],
  ["file", 4_000_000_000_000_000_007n],
])("setTimes gives the %s the time %p", (name, mtimeNs) => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "file"), "x");
  mkdirSync(join(dir.path, "folder"));
  symlinkSync("file", join(dir.path, "link"));
  symlinkSync("nowhere", join(dir.path, "dangling"));
  const file = lstatSync(join(dir.path, "file"), { bigint: true });
  using root = new Root(dir.path);
  using top = root.dir("");
  setTimes(top, name, mtimeNs);
  const after = lstatSync(join(dir.path, name), { bigint: true });
  expect(after.mtimeNs).toBe(mtimeNs);
  if (name === "link") {
    expect(lstatSync(join(dir.path, "file"), { bigint: true }).mtimeNs).toBe(file.mtimeNs);
  }
});

test("setTimes says what is missing, and refuses a path", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  using top = root.dir("");
  expect(() => setTimes(top, "nothing", 1n)).toThrow(
    expect.objectContaining({ kind: "missing" }) as Error,
  );
  expect(() => setTimes(top, "../x", 1n)).toThrow(
    expect.objectContaining({ kind: "bad_name" }) as Error,
  );
});

test("syncFileSystem resolves when the disk has everything", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "file"), "x".repeat(100_000));
  using root = new Root(dir.path);
  using top = root.dir("");
  await syncFileSystem(top);
});
