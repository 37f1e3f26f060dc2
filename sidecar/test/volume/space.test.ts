import { expect, test } from "bun:test";

import { Root } from "../../src/volume/root.ts";
import { belowReserve, readSpace } from "../../src/volume/space.ts";
import { tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;

test.each([
  { bytes: 10_000 * MiB, free: 501 * MiB, below: false },
  { bytes: 10_000 * MiB, free: 499 * MiB, below: true },
  { bytes: 1_000 * MiB, free: 65 * MiB, below: false },
  { bytes: 1_000 * MiB, free: 63 * MiB, below: true },
  { bytes: 1_000 * MiB, free: 0, below: true },
])("with $free of $bytes bytes free the reserve is touched: $below", ({ bytes, free, below }) => {
  expect(belowReserve({ bytes, free, files: 0 })).toBe(below);
});

test("readSpace measures the volume a folder is on", async () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  using top = root.dir("");
  const space = await readSpace(top);
  expect(space.bytes).toBeGreaterThan(space.free);
  expect(space.free).toBeGreaterThan(0);
  expect(space.files).toBeGreaterThanOrEqual(0);
});
