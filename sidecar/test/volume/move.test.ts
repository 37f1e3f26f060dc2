import { expect, test } from "bun:test";
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { moveEntry } from "../../src/volume/move.ts";
import { Root } from "../../src/volume/root.ts";
import { VolumeError } from "../../src/volume/volume-error.ts";
import { tempDir } from "../support/temp-dir.ts";

async function move(path: string, from: string, to: string): Promise<string> {
  using root = new Root(path, {
    private: [".own", "work/deep/secret"],
    aliases: [["/home/work", "work"]],
  });
  try {
    await moveEntry(root, { from, to });
    return "done";
  } catch (error) {
    return error instanceof VolumeError ? error.kind : String(error);
  }
}

function plant(path: string): void {
  for (const folder of [".own", "work/deep/secret", "work/a/b", "work/full", "work/empty"]) {
    mkdirSync(join(path, folder), { recursive: true });
  }
  for (const file of ["work/file", "work/other", "work/full/file", "work/a/b/c"]) {
    writeFileSync(join(path, file), file);
  }
  symlinkSync("a", join(path, "work/link"));
  symlinkSync("/etc", join(path, "work/out"));
}

test.each([
  ["work/file", "work/renamed", "done"],
  ["work/file", "work/new/folders/on/the/way", "done"],
  ["work/file", "work/other", "done"],
  ["work/a", "work/empty", "done"],
  ["work/a", "work/moved", "done"],
  ["work/link", "work/renamed", "done"],
  ["work/out", "work/renamed", "done"],
  ["work/file", "work/link/file", "done"],
  ["work/a", "work/a", "done"],
  ["work/missing", "work/new/x", "missing"],
  ["work/a", "work/full", "not_empty"],
  ["work/a", "work/file", "not_directory"],
  ["work/file", "work/full", "is_directory"],
  ["work/file", "work/file/x", "bad_name"],
  ["work/a", "work/a/b/new/c", "bad_name"],
  ["work/a", "work/link/x", "bad_name"],
  ["work/file", "work/out/x", "outside_root"],
  ["work/out/passwd", "work/x", "outside_root"],
  ["work/file", ".own/x", "private"],
  [".own", "work/x", "private"],
  ["work", "elsewhere", "denied"],
  ["work/deep", "work/x", "denied"],
  ["work/file", "work", "denied"],
  ["", "work/x", "is_directory"],
  ["work/file", "", "is_directory"],
  ["work/file", "work/../x", "bad_name"],
])("a move from %p to %p ends in %s", async (from, to, outcome) => {
  using dir = tempDir();
  plant(dir.path);
  expect(await move(dir.path, from, to)).toBe(outcome);
  if (outcome !== "done") {
    expect(readFileSync(join(dir.path, "work/file"), "utf8")).toBe("work/file");
    expect(readdirSync(join(dir.path, "work")).toSorted()).toEqual(
      ["a", "deep", "empty", "file", "full", "link", "other", "out"].toSorted(),
    );
  }
});

test("a link moves as a link", async () => {
  using dir = tempDir();
  plant(dir.path);
  expect(await move(dir.path, "work/out", "work/a/out")).toBe("done");
  expect(lstatSync(join(dir.path, "work/a/out")).isSymbolicLink()).toBe(true);
});

test("a file that is replaced has the content of the one that came", async () => {
  using dir = tempDir();
  plant(dir.path);
  expect(await move(dir.path, "work/file", "work/other")).toBe("done");
  expect(readFileSync(join(dir.path, "work/other"), "utf8")).toBe("work/file");
  expect(readdirSync(join(dir.path, "work"))).not.toContain("file");
});
