import { expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Index } from "../../../src/backup/index.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { scan } from "../../../src/backup/notice/scan.ts";
import { ReadContext, type ReadContextOptions } from "../../../src/backup/read/read-context.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
import { ContentChanged, type Reading } from "../../../src/backup/read/reading.ts";
import { UNRESTORED } from "../../../src/backup/stamp.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { Root } from "../../../src/volume/root.ts";
import { VolumeError } from "../../../src/volume/volume-error.ts";
import { holdLease } from "../../support/lease.ts";
import { tempDir } from "../../support/temp-dir.ts";

// The machine may be busy.
setDefaultTimeout(30_000);

interface Volume extends Disposable {
  readonly path: string;
  readonly index: Index;
  readonly context: ReadContext;
  /** Takes a reading into the index as a commit would. */
  record(reading: Reading): void;
}

function volume(options: Partial<ReadContextOptions> = {}): Volume {
  const path = mkdtempSync(join(tmpdir(), "sidecar-test-"));
  mkdirSync(join(path, ".sidecar"));
  const index = new Index(join(path, ".sidecar/index.sqlite"));
  const root = new Root(path);
  const context = new ReadContext({
    root,
    index,
    ignore: createIgnore(),
    clock: systemClock,
    ...options,
  });
  return {
    path,
    index,
    context,
    record(reading) {
      if (reading.kind !== "changed" && reading.kind !== "same") throw new Error(reading.kind);
      const { entry } = reading.item;
      const extents =
        entry.type === "file" && entry.extents.length === 0 && entry.size > 0
          ? [{ blob: entry.sha256, offset: 0, length: entry.size }]
          : undefined;
      index.restamp([
        extents && entry.type === "file"
          ? { ...reading.item, entry: { ...entry, extents } }
          : reading.item,
      ]);
    },
    [Symbol.dispose]() {
      context[Symbol.dispose]();
      root[Symbol.dispose]();
      index[Symbol.dispose]();
      rmSync(path, { recursive: true, force: true });
    },
  };
}

function changed(reading: Reading): Extract<Reading, { kind: "changed" }> {
  if (reading.kind !== "changed") throw new Error(`${reading.kind}: ${JSON.stringify(reading)}`);
  return reading;
}

function entryOf(reading: Reading) {
  const { entry } = changed(reading).item;
  if (entry.type !== "file") throw new Error(entry.type);
  return entry;
}

async function bytesOf(reading: Reading): Promise<Buffer> {
  const { content } = changed(reading);
  if (content?.kind === "inline") return Buffer.from(content.bytes);
  if (content?.kind !== "blob") throw new Error("no content");
  const chunks: Uint8Array[] = [];
  for await (const chunk of content.source.open()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function dispose(reading: Reading): void {
  if (reading.kind === "changed" && reading.content?.kind === "blob") reading.content.dispose();
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function scanNow(data: Volume): { readonly changed: string[] } {
  using root = new Root(data.path);
  const changed: string[] = [];
  scan(root, {
    index: data.index,
    ignore: data.context.ignore,
    clock: systemClock,
    onBatch: (batch) => changed.push(...batch.changed),
  });
  return { changed };
}

function openFiles(): number {
  return readdirSync("/proc/self/fd").length;
}

test.each([0, 1, 64 * 1024, 64 * 1024 + 1, 3 * 1024 * 1024 + 7])(
  "readPath reads a file of %d bytes",
  async (size) => {
    using data = volume();
    const bytes = crypto.getRandomValues(Buffer.alloc(Math.min(size, 65_536)));
    const content = Buffer.alloc(size, size === 0 ? "" : bytes);
    writeFileSync(join(data.path, "file"), content);
    chmodSync(join(data.path, "file"), 0o4751);
    // The folder stays open for what comes next.
    await readPath("other", data.context);
    const files = openFiles();
    const reading = changed(await readPath("file", data.context));
    expect(reading.again).toBe(false);
    const { mtimeNs } = lstatSync(join(data.path, "file"), { bigint: true });
    expect(reading.item.entry).toEqual({
      type: "file",
      path: "file",
      mode: 0o751,
      mtimeNs: String(mtimeNs),
      size,
      sha256: sha256(content),
      extents: [],
    });
    expect(reading.item.racy).toBe(true);
    expect(reading.content?.kind).toBe(
      size === 0 ? undefined : size <= 64 * 1024 ? "inline" : "blob",
    );
    if (size > 0) {
      expect((await bytesOf(reading)).equals(content)).toBe(true);
      // Again, as for a retry.
      expect((await bytesOf(reading)).equals(content)).toBe(true);
    }
    dispose(reading);
    dispose(reading);
    expect(openFiles()).toBe(files);
  },
);

test("readPath reads folders and links as what they are", async () => {
  using data = volume();
  mkdirSync(join(data.path, "folder"));
  chmodSync(join(data.path, "folder"), 0o2755);
  symlinkSync("/etc/passwd", join(data.path, "link"));
  const folder = changed(await readPath("folder", data.context));
  expect(folder.item.entry).toMatchObject({ type: "directory", path: "folder", mode: 0o755 });
  const link = changed(await readPath("link", data.context));
  expect(link.item.entry).toMatchObject({ type: "symlink", path: "link", target: "/etc/passwd" });
});

test.each([
  ["nothing", "none"],
  ["what is below nothing", "none/x"],
  ["what is below a file", "file/x"],
  ["what is below a link", "link/file"],
  ["a FIFO", "fifo"],
  ["what is ignored", ".last-sync"],
  ["what is in an ignored folder", "workspace/node_modules/x"],
  ["our own folder", ".sidecar/index.sqlite"],
])("readPath takes %s for gone", async (_what, path) => {
  using data = volume();
  mkdirSync(join(data.path, "workspace/node_modules"), { recursive: true });
  for (const name of ["file", ".last-sync", "workspace/node_modules/x"]) {
    writeFileSync(join(data.path, name), "x");
  }
  symlinkSync(".", join(data.path, "link"));
  Bun.spawnSync(["mkfifo", join(data.path, "fifo")]);
  expect(await readPath(path, data.context)).toEqual({ kind: "gone", path });
});

test("readPath skips what is too big, and what is mounted there", async () => {
  using data = volume({ maxFileBytes: 10 });
  writeFileSync(join(data.path, "file"), "12345678901");
  const reading = await readPath("file", data.context);
  expect(reading).toMatchObject({ kind: "skipped", path: "file", reason: "too_big" });
  using index = new Index(":memory:");
  using root = new Root("/");
  using context = new ReadContext({ root, index, ignore: createIgnore(), clock: systemClock });
  const proc = await readPath("proc/version", context);
  expect(proc).toMatchObject({ kind: "skipped", reason: "other_mount" });
});

test("readPath skips a file that its owner keeps from being opened", async () => {
  using data = volume();
  writeFileSync(join(data.path, "file"), "leased");
  using _ = holdLease(join(data.path, "file"));
  const reading = await readPath("file", data.context);
  expect(reading).toMatchObject({ kind: "skipped", path: "file", reason: "unreadable" });
});

test("readPath skips a link whose target is not UTF-8", async () => {
  using data = volume();
  symlinkSync(Buffer.from([0x61, 0xff]), join(data.path, "link"));
  const reading = await readPath("link", data.context);
  expect(reading).toMatchObject({ kind: "skipped", path: "link", reason: "bad_name" });
});

test("readPath says same where only the stamp is new", async () => {
  using data = volume();
  const path = join(data.path, "file");
  writeFileSync(path, "x");
  utimesSync(path, 1, 1_000);
  data.record(await readPath("file", data.context));
  const before = data.index.get("file")?.stamp;
  writeFileSync(path, "x");
  utimesSync(path, 1, 1_000);
  const reading = await readPath("file", data.context);
  expect(reading.kind).toBe("same");
  data.record(reading);
  expect(data.index.get("file")?.stamp).not.toBe(before);
});

test("readPath does not read what looks as the index has it", async () => {
  using data = volume();
  writeFileSync(join(data.path, "file"), "x");
  const reading = changed(await readPath("file", data.context));
  const other = { ...entryOf(reading), sha256: "0".repeat(64) };
  data.index.restamp([{ ...reading.item, entry: other, racy: false }]);
  expect(await readPath("file", data.context)).toMatchObject({
    kind: "same",
    item: { entry: { sha256: "0".repeat(64) } },
  });
  data.index.restamp([{ ...reading.item, entry: other, racy: true }]);
  expect(await readPath("file", data.context)).toMatchObject({ kind: "changed" });
});

test.each([10, 100_000])("readPath sends no content the store has: %d bytes", async (size) => {
  using data = volume();
  writeFileSync(join(data.path, "a"), Buffer.alloc(size, "x"));
  const first = await readPath("a", data.context);
  dispose(first);
  data.record(first);
  renameSync(join(data.path, "a"), join(data.path, "b"));
  const files = openFiles();
  const moved = changed(await readPath("b", data.context));
  expect(moved.content).toBeUndefined();
  expect(entryOf(moved).extents).toEqual([
    { blob: entryOf(moved).sha256, offset: 0, length: size },
  ]);
  expect(openFiles()).toBe(files);
});

test("readPath sends what could not be restored, though the index has the very same", async () => {
  using data = volume();
  writeFileSync(join(data.path, "file"), "content");
  const reading = changed(await readPath("file", data.context));
  data.record({ ...reading, item: { ...reading.item, stamp: UNRESTORED } });
  expect((await bytesOf(await readPath("file", data.context))).toString()).toBe("content");
});

test("readPath puts the names of one inode into one group", async () => {
  using data = volume();
  writeFileSync(join(data.path, "b"), "x");
  linkSync(join(data.path, "b"), join(data.path, "c"));
  const b = await readPath("b", data.context);
  const c = await readPath("c", data.context);
  expect([entryOf(b).hardlink, entryOf(c).hardlink]).toEqual(["b", "b"]);
  data.record(b);
  data.record(c);
  data.context.startBatch();
  linkSync(join(data.path, "b"), join(data.path, "a"));
  expect(entryOf(await readPath("a", data.context)).hardlink).toBe("b");
  rmSync(join(data.path, "a"));
  rmSync(join(data.path, "c"));
  appendFileSync(join(data.path, "b"), "y");
  const alone = changed(await readPath("b", data.context));
  expect(entryOf(alone).hardlink).toBeUndefined();
  expect(alone.item.inode).toBeUndefined();
});

test("readPath reads a file with holes", async () => {
  using data = volume();
  writeFileSync(join(data.path, "sparse"), "start");
  truncateSync(join(data.path, "sparse"), 10 * 1024 * 1024);
  const reading = await readPath("sparse", data.context);
  const bytes = await bytesOf(reading);
  expect(bytes.length).toBe(10 * 1024 * 1024);
  expect(sha256(bytes)).toBe(entryOf(reading).sha256);
  dispose(reading);
});

test("readPath's content stays that of its hash when the file grows", async () => {
  using data = volume();
  const path = join(data.path, "log");
  writeFileSync(path, Buffer.alloc(200_000, "a"));
  const reading = await readPath("log", data.context);
  appendFileSync(path, "more");
  const bytes = await bytesOf(reading);
  expect([bytes.length, sha256(bytes)]).toEqual([200_000, entryOf(reading).sha256]);
  dispose(reading);
});

test.each<[what: string, change: (path: string) => void]>([
  ["rewritten", (path) => void writeSync(openSync(path, "r+"), "b", 150_000)],
  ["cut short", (path) => truncateSync(path, 100)],
])(
  "readPath's content fails at its end when the file is %s, then comes from a copy",
  async (_what, change) => {
    using data = volume();
    const path = join(data.path, "file");
    writeFileSync(path, Buffer.alloc(2_500_000, "a"));
    const reading = await readPath("file", data.context);
    change(path);
    let given = 0;
    const content = changed(reading).content;
    if (content?.kind !== "blob") throw new Error("no blob");
    const send = async (): Promise<void> => {
      for await (const chunk of content.source.open()) given += chunk.length;
    };
    await expect(send()).rejects.toBeInstanceOf(ContentChanged);
    expect(given).toBeLessThan(2_500_000);
    dispose(reading);
    truncateSync(path, 2_000_000);
    const copied = await readPath("file", data.context);
    writeFileSync(path, "something else");
    expect(sha256(await bytesOf(copied))).toBe(entryOf(copied).sha256);
    dispose(copied);
    expect(readdirSync(join(data.path, ".sidecar/staging"))).toEqual([]);
  },
);

test("readPath backs up a file that never rests", async () => {
  using data = volume();
  const path = join(data.path, "busy");
  writeFileSync(path, Buffer.alloc(8 * 1024 * 1024, "a"));
  const writer = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const fd = fs.openSync(${JSON.stringify(path)}, "r+");
     const end = Date.now() + 20_000; process.stdout.write("ready");
     for (let i = 0; Date.now() < end; i += 1) fs.writeSync(fd, String(i), (i * 4099) % 8_000_000);`,
    ],
    { stdout: "pipe" },
  );
  try {
    await writer.stdout.getReader().read();
    let got = 0;
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const reading = changed(await readPath("busy", data.context));
      if (!reading.again) continue;
      expect(entryOf(reading).unstable).toBe(true);
      expect(sha256(await bytesOf(reading))).toBe(entryOf(reading).sha256);
      dispose(reading);
      got += 1;
    }
    expect(got).toBeGreaterThan(0);
  } finally {
    writer.kill("SIGKILL");
    await writer.exited;
  }
});

test("readPath reads a file that is appended to all the time, without a private copy", async () => {
  using data = volume();
  const path = join(data.path, "log.jsonl");
  writeFileSync(path, "");
  const writer = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const fd = fs.openSync(${JSON.stringify(path)}, "a");
     const end = Date.now() + 20_000; process.stdout.write("ready");
     const rest = new Int32Array(new SharedArrayBuffer(4));
     for (let i = 0; Date.now() < end; i += 1) {
       fs.writeSync(fd, JSON.stringify({ i, x: "y".repeat(500) }) + "\\n");
       if (i % 16 === 0) Atomics.wait(rest, 0, 0, 1);
     }`,
    ],
    { stdout: "pipe" },
  );
  try {
    await writer.stdout.getReader().read();
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const reading = changed(await readPath("log.jsonl", data.context));
      const bytes = entryOf(reading).size === 0 ? Buffer.alloc(0) : await bytesOf(reading);
      expect(sha256(bytes)).toBe(entryOf(reading).sha256);
      const lines = bytes.toString().split("\n").slice(0, -1);
      expect(lines.every((line, i) => line.startsWith(`{"i":${i},`))).toBe(true);
      dispose(reading);
    }
    expect(existsSync(join(data.path, ".sidecar/staging"))).toBe(false);
  } finally {
    writer.kill("SIGKILL");
    await writer.exited;
  }
});

test("readPath never reads outside, whatever is swapped meanwhile", async () => {
  using data = volume();
  using outside = tempDir();
  const secret = "SECRET-".repeat(20);
  for (const name of ["file", "big"]) {
    mkdirSync(join(outside.path, "sub"), { recursive: true });
    writeFileSync(join(outside.path, name), name === "file" ? secret : secret.repeat(1_000));
    writeFileSync(join(outside.path, "sub", name), secret.repeat(1_000));
  }
  const swapper = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const root = ${JSON.stringify(data.path)}, out = ${JSON.stringify(outside.path)};
     const end = Date.now() + 20_000;
     const remove = (p) => fs.rmSync(p, { recursive: true, force: true });
     process.stdout.write("ready");
     while (Date.now() < end) {
       try {
         fs.mkdirSync(root + "/new/sub", { recursive: true });
         for (const f of ["file", "big", "sub/file", "sub/big"]) fs.writeFileSync(root + "/new/" + f, "inside".repeat(f.endsWith("big") ? 20_000 : 5));
         fs.renameSync(root + "/new", root + "/dir"); 
         fs.symlinkSync(out + "/file", root + "/l"); fs.renameSync(root + "/l", root + "/dir/file");
         fs.symlinkSync(out + "/big", root + "/l"); fs.renameSync(root + "/l", root + "/dir/big");
         fs.renameSync(root + "/dir/sub", root + "/old"); fs.symlinkSync(out + "/sub", root + "/dir/sub");
         fs.renameSync(root + "/dir", root + "/old2"); fs.symlinkSync(out, root + "/dir");
       } catch {}
       for (const p of ["/dir", "/old", "/old2", "/l", "/new"]) try { remove(root + p) } catch {}
     }`,
    ],
    { stdout: "pipe" },
  );
  try {
    await swapper.stdout.getReader().read();
    const seen = new Map<string, number>();
    const end = performance.now() + 3_000;
    while (performance.now() < end) {
      const { changed: names } = scanNow(data);
      expect(names.filter((path) => path.includes("only-outside"))).toEqual([]);
      for (const path of ["dir", "dir/file", "dir/big", "dir/sub", "dir/sub/file", "dir/sub/big"]) {
        const reading = await readPath(path, data.context);
        seen.set(reading.kind, (seen.get(reading.kind) ?? 0) + 1);
        if (reading.kind !== "changed" || reading.item.entry.type !== "file") continue;
        if (reading.content) {
          const bytes = await bytesOf(reading).catch((error: unknown) => {
            if (error instanceof ContentChanged) return Buffer.alloc(0);
            throw error;
          });
          expect(bytes.includes("SECRET")).toBe(false);
        }
        dispose(reading);
      }
    }
    expect(seen.get("changed")).toBeGreaterThan(10);
    expect(seen.get("gone")).toBeGreaterThan(10);
  } finally {
    swapper.kill("SIGKILL");
    await swapper.exited;
  }
});

test("readPath finds a file in a folder that was made anew", async () => {
  using data = volume();
  for (let i = 0; i < 20; i += 1) {
    mkdirSync(join(data.path, "d"), { recursive: true });
    writeFileSync(join(data.path, "d/x"), String(i));
    expect(await readPath("d/x", data.context)).toMatchObject({ kind: "changed" });
    rmSync(join(data.path, "d"), { recursive: true });
  }
  expect(await readPath("d/x", data.context)).toMatchObject({ kind: "gone" });
});

test("readPath says that the disk fails", async () => {
  using data = volume();
  writeFileSync(join(data.path, "x"), "");
  const error = new VolumeError("failing", 'Cannot open "x": the disk reports an error');
  data.context.ignore = {
    matches: () => false,
    covers: () => {
      throw error;
    },
  };
  expect(await readPath("x", data.context)).toEqual({
    kind: "skipped",
    path: "x",
    reason: "failing",
    message: error.message,
  });
});

test("readPath lets other work go on", async () => {
  using data = volume();
  const names = Array.from({ length: 1_500 }, (_, i) => `file-${i}`);
  for (const name of names) writeFileSync(join(data.path, name), name);
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 1);
  for (const name of names) await readPath(name, data.context);
  clearInterval(timer);
  expect(turns).toBeGreaterThan(0);
});
