import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";

import * as fc from "fast-check";

import type { CheckpointHeader, Entry } from "../../../src/backup/format/format.ts";
import { decodeManifest, encodeManifest } from "../../../src/backup/format/manifest.ts";
import { entryAt, volumePath } from "../../support/backup-arbitraries.ts";
import { tempDir } from "../../support/temp-dir.ts";

function headerOf(entryCount: number): CheckpointHeader {
  return {
    format: 1,
    position: 40,
    id: "an-id-of-ours",
    user: "user-1",
    machine: "machine-1",
    time: 1_700_000_000_000,
    entryCount,
    commits: [],
  };
}

function directory(path: string): Entry {
  return { type: "directory", path, mode: 0o755, mtimeNs: "1700000000123456789" };
}

async function readAll(bytes: Uint8Array): Promise<{ header: CheckpointHeader; entries: Entry[] }> {
  const { header, entries } = await decodeManifest(bytes);
  return { header, entries: await Array.fromAsync(entries) };
}

test("a manifest comes back as it was", async () => {
  const entries = fc.array(
    volumePath.chain((path) => entryAt(path)),
    { maxLength: 20 },
  );
  await fc.assert(
    fc.asyncProperty(entries, async (entries) => {
      const header = headerOf(entries.length);
      expect(await readAll(await encodeManifest(header, entries))).toEqual({ header, entries });
    }),
    { numRuns: 100 },
  );
}, 60_000);

test("a manifest of 100,000 entries goes through without standing in memory or holding up the loop", async () => {
  const count = 100_000;
  function* entries(): Generator<Entry> {
    for (let n = 0; n < count; n += 1) yield directory(`folder-${n % 100}/entry-${n}`);
  }
  let turns = 0;
  const counting = new AbortController();
  const turning = (async () => {
    while (!counting.signal.aborted) {
      turns += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const bytes = await encodeManifest(headerOf(count), entries());
  let read = 0;
  for await (const entry of (await decodeManifest(bytes)).entries) {
    if (entry.path === `folder-${read % 100}/entry-${read}`) read += 1;
  }
  counting.abort();
  await turning;
  expect(read).toBe(count);
  expect(turns).toBeGreaterThan(100);
});

test("a manifest opens with zstd and jq alone", async () => {
  using dir = tempDir();
  const bytes = await encodeManifest(headerOf(2), [directory("a"), directory("a/b\nc")]);
  writeFileSync(join(dir.path, "m"), bytes);
  const { stdout } = Bun.spawnSync(["sh", "-euc", "zstd -dc < m | jq -c '[.position, .path]'"], {
    cwd: dir.path,
  });
  expect(stdout.toString()).toBe('[40,null]\n[null,"a"]\n[null,"a/b\\nc"]\n');
});

test("a manifest is not written with another number of entries than it promises", async () => {
  await expect(encodeManifest(headerOf(3), [directory("a")])).rejects.toThrow(
    "1 entries, not the 3",
  );
});

test("a manifest that is cut anywhere is not read to its end, or is whole all the same", async () => {
  const entries = Array.from({ length: 20 }, (_, n) => directory(`entry-${n}`));
  const bytes = await encodeManifest(headerOf(20), entries);
  for (let length = 0; length < bytes.length; length += 1) {
    try {
      expect((await readAll(bytes.subarray(0, length))).entries).toEqual(entries);
    } catch (error) {
      expect(error).toMatchObject({ name: "CodecError", kind: "corrupt" });
    }
  }
}, 60_000);

test.each([
  ["nothing at all", ""],
  ["no JSON", "hello\n"],
  ["fewer entries than promised", `${JSON.stringify(headerOf(1))}\n`],
  ["no newline at its end", JSON.stringify(headerOf(0))],
  [
    "a path that leads out",
    `${JSON.stringify(headerOf(1))}\n${JSON.stringify(directory("../x"))}\n`,
  ],
  ["bytes that are not UTF-8", Buffer.from([0xff, 0xfe, 0x0a])],
])("a manifest with %s is corrupt", async (_, text) => {
  const failure = await readAll(zstdCompressSync(Buffer.from(text))).catch(
    (error: unknown) => error,
  );
  expect(failure).toMatchObject({ kind: "corrupt" });
});

test("a manifest with an endless line is refused within bounded memory", async () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024, "x"));
  expect(await readAll(bomb).catch((error: unknown) => error)).toMatchObject({ kind: "corrupt" });
});

test("a manifest whose format is newer is refused with what to do", async () => {
  const bytes = await encodeManifest({ ...headerOf(0), format: 9 }, []);
  await expect(decodeManifest(bytes, { key: "checkpoints/40" })).rejects.toMatchObject({
    kind: "newer",
    message: expect.stringContaining("use the newer image"),
  });
});
