import { expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { Root, type WalkOptions } from "../../src/volume/root.ts";
import { VolumeError } from "../../src/volume/volume-error.ts";
import { holdLease } from "../support/lease.ts";
import { tempDir } from "../support/temp-dir.ts";

interface Tree extends Disposable {
  readonly root: Root;
  readonly path: string;
}

function plant(links: Readonly<Record<string, string>> = {}): Tree {
  const dir = tempDir();
  const path = join(dir.path, "root");
  for (const folder of ["root/a/b/c", "root/private/deep", "root-sibling", "outside/folder"]) {
    mkdirSync(join(dir.path, folder), { recursive: true });
  }
  for (const file of [
    "root/file",
    "root/a/file",
    "root/a/b/c/file",
    "root/private/deep/file",
    "root-sibling/file",
    "outside/folder/file",
  ]) {
    writeFileSync(join(dir.path, file), file);
  }
  for (const [name, target] of Object.entries(links)) {
    symlinkSync(target.replace("$ROOT", path).replace("$OUT", dir.path), join(path, name));
  }
  const root = new Root(path, {
    private: ["private"],
    aliases: [
      ["/home/alias", "a"],
      ["/home/alias/inner", "a/b"],
    ],
  });
  return {
    root,
    path,
    [Symbol.dispose]() {
      root[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

function outcome(action: () => string): string {
  try {
    return action();
  } catch (error) {
    return error instanceof VolumeError ? error.kind : String(error);
  }
}

/** The file's content, through links that stay inside. */
function readVia(root: Root, path: string): string {
  return outcome(() => {
    using place = root.target(path);
    const fd = place.dir.openFile(place.name);
    try {
      return readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  });
}

function dirVia(root: Root, path: string, options?: WalkOptions): string {
  return outcome(() => {
    using dir = root.dir(path, options);
    return `:${dir.path}`;
  });
}

test.each([
  ["a/file", "root/a/file"],
  ["/a//b/c/file/", "root/a/b/c/file"],
  ["../outside/folder/file", "bad_name"],
  ["a/../../outside/folder/file", "bad_name"],
  ["a/./file", "bad_name"],
  ["..", "bad_name"],
  ["a/\0file", "bad_name"],
  [`a/${"n".repeat(256)}`, "bad_name"],
  [`a/${"ü".repeat(128)}`, "bad_name"],
  [`a/${"n".repeat(255)}`, "missing"],
  ["x/".repeat(300) + "file", "bad_name"],
  ["file/x", "not_directory"],
  ["a", "is_directory"],
  ["", "is_directory"],
  ["private", "private"],
  ["private/deep/file", "private"],
  ["private-not", "missing"],
])("the path %p reads as %s", (path, expected) => {
  using tree = plant();
  expect(readVia(tree.root, path)).toBe(expected);
});

test.each([
  ["a relative link", { l: "a/file" }, "l", "root/a/file"],
  ["a relative link with ..", { "a/l": "../file" }, "a/l", "root/file"],
  ["a link to a folder", { l: "a/b" }, "l/c/file", "root/a/b/c/file"],
  ["a link to a folder, then a link back", { l: "a/b", "a/b/m": "../../file" }, "l/m", "root/file"],
  ["an absolute link inside", { l: "$ROOT/a/file" }, "l", "root/a/file"],
  ["an absolute link by an alias", { l: "/home/alias/file" }, "l", "root/a/file"],
  ["the longest alias", { l: "/home/alias/inner/c/file" }, "l", "root/a/b/c/file"],
  ["an alias and ..", { l: "/home/alias/../file" }, "l", "root/file"],
  ["a chain of links", { l: "m", m: "n", n: "a/o", "a/o": "b/c/file" }, "l", "root/a/b/c/file"],
  ["a link with dots inside", { l: "a/./b/../b/c/file" }, "l", "root/a/b/c/file"],
  ["an absolute link outside", { l: "/etc/passwd" }, "l", "outside_root"],
  ["an absolute link outside, to a folder", { l: "/etc" }, "l/passwd", "outside_root"],
  ["a relative link outside", { l: "../outside/folder/file" }, "l", "outside_root"],
  [
    "a deep relative link outside",
    { "a/b/c/l": "../../../../outside" },
    "a/b/c/l/folder/file",
    "outside_root",
  ],
  ["a link out and in again", { l: "../root/file" }, "l", "outside_root"],
  ["a link to the parent of the root", { l: ".." }, "l/outside/folder/file", "outside_root"],
  ["a sibling whose name begins the same", { l: "$ROOT-sibling/file" }, "l", "outside_root"],
  ["an alias left by ..", { l: "/home/alias/../../outside/folder/file" }, "l", "outside_root"],
  ["a sibling of an alias", { l: "/home/alias-x/file" }, "l", "outside_root"],
  [
    "a link through a link that leads out",
    { l: "m/folder/file", m: "$OUT/outside" },
    "l",
    "outside_root",
  ],
  ["a link to itself", { l: "l" }, "l", "outside_root"],
  ["two links in a circle", { l: "m", m: "l" }, "l/x", "outside_root"],
  ["a link that grows", { l: "l/x" }, "l", "outside_root"],
  ["a dangling link", { l: "a/nothing" }, "l", "missing"],
  ["a dangling link on the way", { l: "nothing" }, "l/x", "missing"],
  ["a link to a private folder", { l: "private" }, "l/deep/file", "private"],
  ["a link into a private folder", { l: "private/deep/file" }, "l", "private"],
  ["an absolute link into a private folder", { l: "$ROOT/private/deep/file" }, "l", "private"],
  ["a link to the root", { l: "." }, "l/a/file", "root/a/file"],
  ["a link to a folder, read as a file", { l: "a" }, "l", "is_directory"],
  ["a file used as a folder", { l: "file" }, "l/x", "not_directory"],
  ["/proc/self/root", { l: "/proc/self/root/etc" }, "l/passwd", "outside_root"],
])("through %s", (...[, links, path, expected]) => {
  using tree = plant(links);
  expect(readVia(tree.root, path)).toBe(expected);
});

test("40 links in a row are followed and 41 are not", () => {
  const links = Object.fromEntries(
    Array.from({ length: 41 }, (_, i) => [`l${i}`, i === 0 ? "file" : `l${i - 1}`]),
  );
  using tree = plant(links);
  expect(readVia(tree.root, "l39")).toBe("root/file");
  expect(readVia(tree.root, "l40")).toBe("outside_root");
});

test.each([
  ["l/x", { l: "a" }],
  ["l", { l: "a/b" }],
])("links are refused where they are not wanted: %p", (path, links) => {
  using tree = plant(links);
  expect(dirVia(tree.root, path, { links: "refuse" })).toBe("outside_root");
});

test("place does not look at the last name", () => {
  using tree = plant({ l: "/etc/passwd" });
  using place = tree.root.place("l");
  expect(place.path).toBe("l");
  expect(place.dir.lstat("l").isSymbolicLink()).toBe(true);
  expect(() => place.dir.openFile("l")).toThrow(
    expect.objectContaining({ kind: "outside_root" }) as Error,
  );
  place.dir.unlink("l");
  expect(statSync("/etc/passwd").isFile()).toBe(true);
});

test("folders are made on the way, never through a link that leads out", () => {
  using tree = plant({ out: "$OUT/outside", dangling: "new/folder", away: "$OUT/outside/new" });
  const made: string[] = [];
  const options = { create: { onCreate: (path: string) => void made.push(path) } };
  expect(dirVia(tree.root, "x/y/z", options)).toBe(":x/y/z");
  expect(dirVia(tree.root, "a/x", options)).toBe(":a/x");
  expect(dirVia(tree.root, "dangling/z", options)).toBe(":new/folder/z");
  expect(dirVia(tree.root, "out/new", options)).toBe("outside_root");
  expect(dirVia(tree.root, "away", options)).toBe("outside_root");
  expect(dirVia(tree.root, "private/new", options)).toBe("private");
  expect(made).toEqual(["x", "x/y", "x/y/z", "a/x", "new", "new/folder", "new/folder/z"]);
  expect(readdirSync(join(tree.path, "../outside"))).toEqual(["folder"]);
});

test.if(process.getuid?.() === 0)("a folder made for an owner belongs to it", () => {
  using tree = plant();
  tree.root.dir("x/y", { create: { owner: { uid: 1234, gid: 1235 } } })[Symbol.dispose]();
  for (const path of ["x", "x/y"]) {
    expect(statSync(join(tree.path, path))).toMatchObject({ uid: 1234, gid: 1235 });
  }
  expect(statSync(join(tree.path, "a")).uid).toBe(0);
});

test.each([
  ["fifo", "special"],
  ["socket", "special"],
  ["device", "special"],
])("a %s is refused at once", async (name, expected) => {
  using tree = plant();
  const path = join(tree.path, name);
  using server = name === "socket" ? listen(path) : undefined;
  if (name === "fifo") Bun.spawnSync(["mkfifo", path]);
  if (name === "device" && Bun.spawnSync(["mknod", path, "c", "1", "3"]).exitCode !== 0) return;
  expect(readVia(tree.root, name)).toBe(expected);
  expect(dirVia(tree.root, name)).toBe("not_directory");
  expect(server === undefined || name === "socket").toBe(true);
});

test("a file that its owner keeps from being opened, by a lease, is refused at once", () => {
  using tree = plant();
  using _ = holdLease(join(tree.path, "a/file"));
  expect(readVia(tree.root, "a/file")).toBe("denied");
});

test.each([
  ["/home/alias", "a"],
  ["/home/alias/", "a"],
  ["/home/alias/x/y", "a/x/y"],
  ["/home/alias/inner/x", "a/b/x"],
  ["/home/alias/inner-not", "a/inner-not"],
  ["/home/alias-x", undefined],
  ["/home", undefined],
  ["/", undefined],
  ["relative", undefined],
])("the absolute path %p means %p", (absolute, expected) => {
  using tree = plant();
  expect(tree.root.relative(absolute)).toBe(expected);
});

test("a path that is too deep makes no folder at all", () => {
  using tree = plant();
  expect(dirVia(tree.root, "new/".repeat(258), { create: {} })).toBe("bad_name");
  expect(readdirSync(tree.path)).not.toContain("new");
  expect(dirVia(tree.root, "new/".repeat(256), { create: {} })).toStartWith(":new/new");
});

test("no walk leaves a descriptor open", () => {
  using tree = plant({ l: "a/b", out: "/etc", loop: "loop" });
  const before = readdirSync("/proc/self/fd").length;
  for (let round = 0; round < 50; round += 1) {
    for (const path of ["a/b/c/file", "l/c/file", "out/passwd", "loop", "missing/x", "../x"]) {
      readVia(tree.root, path);
      dirVia(tree.root, path);
      dirVia(tree.root, path, { links: "refuse" });
    }
  }
  expect(readdirSync("/proc/self/fd").length).toBe(before);
});

function listen(unix: string): Disposable {
  const server = Bun.listen({ unix, socket: { data() {} } });
  return { [Symbol.dispose]: () => server.stop(true) };
}
