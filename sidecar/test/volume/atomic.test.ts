import { expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { TEMP_PREFIX, writeFileAtomic, type WriteOptions } from "../../src/volume/atomic.ts";
import { Root } from "../../src/volume/root.ts";
import { VolumeError } from "../../src/volume/volume-error.ts";
import { countedChunks } from "../support/chunks-in-memory.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const isRoot = process.getuid?.() === 0;

async function put(
  [path, file]: readonly [string, string],
  content: Uint8Array | AsyncIterable<Uint8Array>,
  options?: WriteOptions,
): Promise<number> {
  using root = new Root(path);
  using place = root.place(file);
  return await writeFileAtomic(place, content, options);
}

async function kindOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    return error instanceof VolumeError ? error.kind : String(error);
  }
  return "done";
}

test("a new file has the content, the mode and nothing beside it", async () => {
  using dir = tempDir();
  expect(await put([dir.path, "a"], bytes("hello"), { mode: 0o640 })).toBe(5);
  expect(readFileSync(join(dir.path, "a"), "utf8")).toBe("hello");
  expect(statSync(join(dir.path, "a")).mode & 0o7777).toBe(0o640);
  expect(readdirSync(dir.path)).toEqual(["a"]);
});

test("chunks are written in their order", async () => {
  using dir = tempDir();
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (const part of ["one ", "", "two ", "three"]) yield bytes(part);
  }
  expect(await put([dir.path, "a"], chunks())).toBe(13);
  expect(readFileSync(join(dir.path, "a"), "utf8")).toBe("one two three");
});

test("the time of the file is set to the nanosecond", async () => {
  using dir = tempDir();
  await put([dir.path, "a"], bytes("x"), { mtimeNs: 1_700_000_000_123_456_789n });
  expect(lstatSync(join(dir.path, "a"), { bigint: true }).mtimeNs).toBe(1_700_000_000_123_456_789n);
});

test.if(isRoot)("a replaced file passes on its owner and permission bits", async () => {
  using dir = tempDir();
  const file = join(dir.path, "a");
  writeFileSync(file, "old");
  chownSync(file, 1234, 1235);
  chmodSync(file, 0o4751);
  await put([dir.path, "a"], bytes("new"), { owner: { uid: 99, gid: 99 }, mode: 0o600 });
  expect(statSync(file)).toMatchObject({ uid: 1234, gid: 1235 });
  expect(statSync(file).mode & 0o7777).toBe(0o751);
  await put([dir.path, "a"], bytes("newer"), {
    owner: { uid: 99, gid: 98 },
    mode: 0o600,
    keep: false,
  });
  expect(statSync(file)).toMatchObject({ uid: 99, gid: 98 });
  expect(statSync(file).mode & 0o7777).toBe(0o600);
});

test("a link at the name is replaced and its target stays", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "target"), "untouched");
  symlinkSync("target", join(dir.path, "link"));
  await put([dir.path, "link"], bytes("new"));
  expect(lstatSync(join(dir.path, "link")).isFile()).toBe(true);
  expect(readFileSync(join(dir.path, "target"), "utf8")).toBe("untouched");
});

test("a folder and a FIFO are refused before the content is read", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "folder"));
  Bun.spawnSync(["mkfifo", join(dir.path, "fifo")]);
  let read = false;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    read = true;
    yield bytes("x");
  }
  expect(await kindOf(put([dir.path, "folder"], chunks()))).toBe("is_directory");
  expect(await kindOf(put([dir.path, "fifo"], chunks()))).toBe("special");
  expect(read).toBe(false);
  expect(readdirSync(dir.path).toSorted()).toEqual(["fifo", "folder"]);
});

test("a source that throws leaves the old file and nothing else", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "a"), "old");
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield bytes("half");
    throw new Error("gone");
  }
  expect(await kindOf(put([dir.path, "a"], chunks()))).toBe("Error: gone");
  expect(readFileSync(join(dir.path, "a"), "utf8")).toBe("old");
  expect(readdirSync(dir.path)).toEqual(["a"]);
});

test("a content past the limit leaves the old file and nothing else", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "a"), "old");
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) yield bytes("0123456789");
  }
  expect(await kindOf(put([dir.path, "a"], endless(), { maxBytes: 1_000 }))).toBe("too_large");
  expect(readFileSync(join(dir.path, "a"), "utf8")).toBe("old");
  expect(readdirSync(dir.path)).toEqual(["a"]);
  expect(await kindOf(put([dir.path, "b"], bytes("0123456789"), { maxBytes: 10 }))).toBe("done");
});

test("an abort ends a write whose source stays silent", async () => {
  using dir = tempDir();
  const stop = new AbortController();
  async function* silent(): AsyncGenerator<Uint8Array> {
    yield bytes("begin");
    await new Promise(() => {});
  }
  const writing = kindOf(put([dir.path, "a"], silent(), { signal: stop.signal }));
  await until(() => readdirSync(dir.path).some((name) => name.startsWith(TEMP_PREFIX)), "begun");
  stop.abort(new Error("enough"));
  expect(await writing).toBe("Error: enough");
  expect(readdirSync(dir.path)).toEqual([]);
});

test("a folder that vanishes during the write fails it as missing", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "folder"));
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield bytes("x");
    Bun.spawnSync(["rm", "-r", join(dir.path, "folder")]);
  }
  expect(await kindOf(put([dir.path, "folder/a"], chunks()))).toBe("missing");
});

test.if(isRoot)(
  "a full disk fails as no_space, and the old file and nothing else is there",
  async () => {
    using dir = tempDir();
    const mount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir.path]);
    if (mount.exitCode !== 0) return;
    try {
      writeFileSync(join(dir.path, "a"), "old");
      expect(await kindOf(put([dir.path, "a"], new Uint8Array(2_000_000)))).toBe("no_space");
      expect(readFileSync(join(dir.path, "a"), "utf8")).toBe("old");
      expect(readdirSync(dir.path)).toEqual(["a"]);
    } finally {
      Bun.spawnSync(["umount", dir.path]);
    }
  },
);

test("a writer killed at any moment leaves the old content or the new one", async () => {
  using dir = tempDir();
  const file = join(dir.path, "a");
  const contents = ["a".repeat(300_000), "b".repeat(300_000)];
  writeFileSync(file, contents[0] ?? "");
  for (let round = 0; round < 5; round += 1) {
    const writer = Bun.spawn(
      [process.execPath, join(import.meta.dir, "../fixtures/endless-writer.ts"), dir.path],
      { stdout: "pipe", stderr: "inherit" },
    );
    await writer.stdout.getReader().read();
    await Bun.sleep(round * 7);
    writer.kill("SIGKILL");
    await writer.exited;
    expect(contents).toContain(readFileSync(file, "utf8"));
  }
}, 30_000);

test("a file that is written as it comes is not kept in memory", async () => {
  using dir = tempDir();
  const chunks = countedChunks(400);
  const { signal } = new AbortController();
  expect(await put([dir.path, "file"], chunks.source(), { signal })).toBe(chunks.sizeBytes);
  expect(chunks.most).toBeLessThan(60);
});
