import { expect, test } from "bun:test";

import { BATCH_LIMITS, collectBatch, type BatchLimits } from "../../../src/backup/commit/batch.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { changedFile, gone } from "../../support/readings.ts";

const never = new AbortController().signal;

function collect(
  count: number,
  read: (path: string) => Promise<Reading>,
  limits: Partial<BatchLimits> = {},
) {
  const paths = Array.from({ length: count }, (_, n) => `path-${n}`);
  const work = collectBatch({
    take: async (limit) => paths.splice(0, limit),
    read,
    limits: { ...BATCH_LIMITS, ...limits },
    signal: never,
  });
  return { work, paths };
}

test("a batch holds all there is while it is small", async () => {
  const { work } = collect(100, async (path) => gone(path));
  const { readings, full, bytes } = await work;
  expect([readings.length, full, bytes]).toEqual([100, false, 0]);
});

const small = async (path: string): Promise<Reading> => changedFile(path, "x".repeat(1_000));
const large = async (path: string): Promise<Reading> => changedFile(path, "x".repeat(100_000));

/** A delta, with as many bytes in the commit, or in a blob, and as many extents. */
function delta({ inline = 0, blob = 0, extents = 2 }) {
  return async (path: string): Promise<Reading> => {
    const reading = changedFile(path, "x".repeat(100_000));
    if (reading.kind !== "changed" || reading.content?.kind !== "blob") throw new Error("no blob");
    const source = { ...reading.content.source, sizeBytes: blob };
    const fresh =
      inline > 0
        ? ({ kind: "inline", bytes: new Uint8Array(inline) } as const)
        : ({ kind: "blob", sha256: "0".repeat(64), source } as const);
    const rest = { base: "", pieces: [], extents, dispose: () => undefined };
    return { ...reading, content: { kind: "delta", fresh, ...rest } };
  };
}

test.each([
  { what: "entries", read: small, limits: { entries: 100 }, most: 100 },
  { what: "bytes inside the commit", read: small, limits: { inlineBytes: 600_000 }, most: 600 },
  { what: "bytes of paths", read: small, limits: { pathBytes: 500 }, most: 80 },
  { what: "open files", read: large, limits: { blobs: 20 }, most: 20 },
  { what: "bytes of blobs", read: large, limits: { blobBytes: 1_000_000 }, most: 16 },
  { what: "new bytes", read: delta({ inline: 1e5 }), limits: { inlineBytes: 2e6 }, most: 24 },
  { what: "blobs of new bytes", read: delta({ blob: 1e6 }), limits: { blobBytes: 8e6 }, most: 16 },
  { what: "open deltas", read: delta({ blob: 1 }), limits: { blobs: 20 }, most: 20 },
  { what: "extents", read: delta({ inline: 1, extents: 4_000 }), limits: {}, most: 24 },
])("a batch ends before it has too many $what", async ({ read, limits, most }) => {
  const { work, paths } = collect(2_000, read, limits);
  const { readings, full } = await work;
  expect(full).toBe(true);
  expect(readings.length).toBeGreaterThan(0);
  expect(readings.length).toBeLessThanOrEqual(most);
  expect(readings.length + paths.length).toBe(2_000);
});

test("a batch that cannot be read gives back what it holds", async () => {
  let open = 0;
  const { work } = collect(20, async (path) => {
    if (path === "path-13") throw new Error("too many open files");
    open += 1;
    return changedFile(path, "x".repeat(100_000), { onDispose: () => void (open -= 1) });
  });
  await expect(work).rejects.toThrow("too many open files");
  expect(open).toBe(0);
});
