import { expect, test } from "bun:test";

import type { Entry } from "../../../src/backup/format/format.ts";
import { planRestore, roomFor } from "../../../src/backup/restore/restore-plan.ts";

const HASH = "0".repeat(64);

function file(path: string, extra: Partial<Extract<Entry, { type: "file" }>> = {}): Entry {
  return {
    type: "file",
    path,
    mode: 0o644,
    mtimeNs: "0",
    size: 1,
    sha256: HASH,
    extents: [],
    ...extra,
  };
}

function plan(...entries: readonly Entry[]) {
  return planRestore(new Map(entries.map((entry) => [entry.path, entry])));
}

test.each([
  "../escaped",
  "a/../../escaped",
  "/etc/passwd",
  "a/./b",
  "a//b",
  "a/",
  ".",
  "a/nul\0",
  "n".repeat(256),
  ".sidecar/index.sqlite",
  ".sidecar",
  "lost+found/x",
])("the path %j is refused", (path) => {
  const { refused, files } = plan(file(path), file("good"));
  expect(refused.map(({ entry }) => entry.path)).toEqual([path]);
  expect(files.map(({ entry }) => entry.path)).toEqual(["good"]);
});

test("what lies below a file or a link is refused, however deep", () => {
  const { refused } = plan(
    file("plain"),
    { type: "symlink", path: "link", target: "/etc", mtimeNs: "0" },
    file("plain/x"),
    file("link/a/b/c"),
    { type: "directory", path: "link/a", mode: 0o755, mtimeNs: "0" },
  );
  expect(refused.map(({ entry }) => entry.path)).toEqual(["link/a", "link/a/b/c", "plain/x"]);
});

test("a log beside a database that is whole in itself is not restored", () => {
  const logs = ["-wal", "-shm", "-journal"].map((suffix) => file(`x.db${suffix}`));
  const beside = [file("y.db-wal"), file("y.db"), file("z-wal")];
  const { files, refused } = plan(file("x.db", { sqlite: true }), ...logs, ...beside);
  expect(files.map(({ entry }) => entry.path)).toEqual(["x.db", "y.db", "y.db-wal", "z-wal"]);
  expect(refused).toEqual([]);
});

test("names of one inode are one file, as long as their content is the same", () => {
  const other = "1".repeat(64);
  const { files } = plan(
    file("b", { hardlink: "a" }),
    file("a", { hardlink: "a" }),
    file("c", { hardlink: "a", sha256: other }),
    file("d"),
  );
  const groups = files.map(({ entry, links }) => [entry.path, ...links.map(({ path }) => path)]);
  expect(groups.toSorted(([a = ""], [b = ""]) => a.localeCompare(b))).toEqual([
    ["a", "b"],
    ["c"],
    ["d"],
  ]);
});

test("folders that are no entries are made for what is in them", () => {
  expect(plan(file("a/b/c"), file("a/d")).implied).toEqual(["a", "a/b"]);
});

test("files of the same commit are neighbours", () => {
  const at = (commit: number) => [{ commit, member: "m", offset: 0, length: 1 }];
  const { files } = plan(
    file("a", { extents: at(2) }),
    file("b", { extents: at(10) }),
    file("c", { extents: at(2) }),
    file("d", { extents: [{ blob: HASH, offset: 0, length: 1 }] }),
    file("e", { extents: at(10) }),
  );
  expect(files.map(({ entry }) => entry.path)).toEqual(["a", "c", "b", "e", "d"]);
});

test("room is counted in blocks", () => {
  expect(roomFor([0, 1, 4096, 4097], 2)).toEqual({ bytes: (0 + 1 + 1 + 2 + 2) * 4096, inodes: 6 });
});
