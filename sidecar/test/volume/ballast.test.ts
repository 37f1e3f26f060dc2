import { expect, test } from "bun:test";
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";

import { dropBallast, layBallast } from "../../src/volume/ballast.ts";
import { Root } from "../../src/volume/root.ts";
import { tempDir } from "../support/temp-dir.ts";

test("ballast takes real room on the disk, and gives it back once", async () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`);
  const path = `${dir.path}/.sidecar/ballast`;
  expect(dropBallast(root)).toBe(false);
  await layBallast(root);
  const { size, blocks, mtimeMs } = statSync(path);
  expect(size).toBe(16 * 1024 * 1024);
  expect(blocks * 512).toBeGreaterThanOrEqual(size);
  await layBallast(root);
  expect(statSync(path).mtimeMs).toBe(mtimeMs);
  expect(dropBallast(root)).toBe(true);
  expect(dropBallast(root)).toBe(false);
  expect(existsSync(path)).toBe(false);
});

test("ballast that was cut off is laid anew", async () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`);
  writeFileSync(`${dir.path}/.sidecar/ballast`, "half of it");
  await layBallast(root);
  expect(statSync(`${dir.path}/.sidecar/ballast`).size).toBe(16 * 1024 * 1024);
});
