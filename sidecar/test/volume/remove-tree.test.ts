import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { removeTree, type RemoveOptions } from "../../src/volume/remove-tree.ts";
import { Root } from "../../src/volume/root.ts";
import { VolumeError } from "../../src/volume/volume-error.ts";
import { tempDir } from "../support/temp-dir.ts";

async function remove(path: string, name: string, options?: RemoveOptions): Promise<string> {
  using root = new Root(path);
  using place = root.place(name);
  try {
    await removeTree(place, options);
    return "done";
  } catch (error) {
    return error instanceof VolumeError ? error.kind : String(error);
  }
}

test("removeTree deletes a file, a link, a FIFO and a tree, and nothing that a link names", async () => {
  using dir = tempDir();
  const at = (name: string): string => join(dir.path, name);
  mkdirSync(at("kept/inner"), { recursive: true });
  writeFileSync(at("kept/inner/file"), "precious");
  mkdirSync(at("tree/a/b"), { recursive: true });
  writeFileSync(at("tree/a/file"), "x");
  symlinkSync(at("kept"), at("tree/a/b/absolute"));
  symlinkSync("../../kept", at("tree/a/relative"));
  symlinkSync("nowhere", at("tree/dangling"));
  symlinkSync("kept", at("link"));
  Bun.spawnSync(["mkfifo", at("tree/fifo"), at("fifo")]);
  for (const name of ["tree", "link", "fifo"]) expect(await remove(dir.path, name)).toBe("done");
  expect(readdirSync(dir.path)).toEqual(["kept"]);
  expect(readFileSync(at("kept/inner/file"), "utf8")).toBe("precious");
  expect(await remove(dir.path, "tree")).toBe("missing");
});

test("removeTree deletes names that are not UTF-8", async () => {
  using dir = tempDir();
  const folder = Buffer.concat([Buffer.from(`${dir.path}/tree/`), Buffer.from([0xff, 0xfe])]);
  mkdirSync(join(dir.path, "tree"));
  mkdirSync(folder);
  writeFileSync(Buffer.concat([folder, Buffer.from("/"), Buffer.from([0x80])]), "x");
  expect(await remove(dir.path, "tree")).toBe("done");
  expect(readdirSync(dir.path)).toEqual([]);
});

test("removeTree deletes a tree of 2,000 levels with few descriptors", async () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  let folder = root.dir("");
  for (let level = 0; level < 2_000; level += 1) {
    folder.mkdir("d");
    folder.mkdir("e");
    const next = folder.openDir("d");
    folder[Symbol.dispose]();
    folder = next;
  }
  folder[Symbol.dispose]();
  const before = readdirSync("/proc/self/fd").length;
  let most = 0;
  const removing = remove(dir.path, "d").finally(() => (most = -most));
  while (most >= 0) {
    most = Math.max(most, readdirSync("/proc/self/fd").length);
    await Bun.sleep(2);
  }
  expect(await removing).toBe("done");
  expect(-most - before).toBeLessThan(100);
  expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(before);
  expect(readdirSync(dir.path)).toEqual(["e"]);
}, 30_000);

test("removeTree of 5,000 files lets the event loop turn all the while", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "tree"));
  for (let i = 0; i < 5_000; i += 1) writeFileSync(join(dir.path, "tree", `file-${i}`), "");
  let turns = 0;
  const state = { done: false };
  const removing = remove(dir.path, "tree").finally(() => (state.done = true));
  while (!state.done) {
    turns += 1;
    await Bun.sleep(1);
  }
  expect(await removing).toBe("done");
  expect(turns).toBeGreaterThan(5);
}, 30_000);

test("removeTree is not trapped by somebody who keeps filling the tree", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "tree/a/b"), { recursive: true });
  // Ends by itself, and is the very process that is killed: one in between could die without passing that on.
  const fill = `for ((i = 0; SECONDS < 20; i++)); do mkdir -p tree/a/b 2>/dev/null; : 2>/dev/null > tree/a/b/$i; done`;
  const filler = Bun.spawn(["bash", "-c", fill], { cwd: dir.path, stderr: "ignore" });
  try {
    expect(["done", "not_empty"]).toContain(await remove(dir.path, "tree"));
  } finally {
    filler.kill("SIGKILL");
    await filler.exited;
  }
}, 30_000);

test("removeTree deletes nothing outside while folders and links change places", async () => {
  using dir = tempDir();
  const at = (name: string): string => join(dir.path, name);
  mkdirSync(at("outside/deep"), { recursive: true });
  for (let i = 0; i < 20; i += 1) writeFileSync(at(`outside/deep/file-${i}`), "precious");
  mkdirSync(at("root"));
  symlinkSync(at("outside"), at("root/link"));
  for (let round = 0; round < 60; round += 1) {
    mkdirSync(at("root/tree/x/deep"), { recursive: true });
    for (let i = 0; i < 20; i += 1) writeFileSync(at(`root/tree/x/deep/file-${i}`), "");
    const state = { done: false };
    const removing = remove(at("root"), "tree").finally(() => (state.done = true));
    while (!state.done) {
      swap(at("root/tree/x"), at("root/link"), at("root/aside"));
      await Bun.sleep(0);
    }
    await removing;
    await remove(at("root"), "aside");
    if (!existsSync(at("root/link"))) symlinkSync(at("outside"), at("root/link"));
  }
  expect(readdirSync(at("outside/deep"))).toHaveLength(20);
}, 30_000);

test("removeTree stops at an abort", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "tree"));
  for (let i = 0; i < 500; i += 1) writeFileSync(join(dir.path, "tree", `file-${i}`), "");
  const stop = new AbortController();
  const removing = remove(dir.path, "tree", { signal: stop.signal });
  stop.abort(new Error("enough"));
  expect(await removing).toBe("Error: enough");
  expect(existsSync(join(dir.path, "tree"))).toBe(true);
});

function swap(folder: string, link: string, aside: string): void {
  try {
    renameSync(folder, aside);
    renameSync(link, folder);
    renameSync(aside, link);
  } catch {
    // Deleted in between.
  }
}
