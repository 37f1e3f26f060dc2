import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Index } from "../../../src/backup/index.ts";
import { Scanner } from "../../../src/backup/notice/scanner.ts";
import { tempDir } from "../../support/temp-dir.ts";

// The machine may be busy.
setDefaultTimeout(30_000);

function volume(files: number): Disposable & { path: string; index: string; scanner: Scanner } {
  const dir = tempDir();
  const path = join(dir.path, "data");
  mkdirSync(join(path, "workspace"), { recursive: true });
  for (let i = 0; i < files; i += 1) writeFileSync(join(path, "workspace", `${i}.log`), "x");
  const index = join(dir.path, "index.sqlite");
  new Index(index)[Symbol.dispose]();
  return {
    path,
    index,
    scanner: new Scanner({ volume: path, index }),
    [Symbol.dispose]: () => dir[Symbol.dispose](),
  };
}

test("Scanner scans in a Worker, with the volume's own rules, in batches", async () => {
  using data = volume(2_000);
  writeFileSync(join(data.path, "workspace/.backupignore"), "1*.log\n");
  const sizes: number[] = [];
  const result = await data.scanner.scan({ onBatch: (batch) => sizes.push(batch.changed.length) });
  expect(result.outcome).toBe("complete");
  expect(result.ignored.files).toBe(1 + 10 + 100 + 1_000);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(2_000 - 1_111 + 2);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(512);
});

test("Scanner runs one scan after the other", async () => {
  using data = volume(10);
  const [all, one] = await Promise.all([
    data.scanner.scan({ onBatch: () => undefined }),
    data.scanner.scan({ path: "workspace", onBatch: () => undefined }),
  ]);
  expect([all.changed, one.changed]).toEqual([11, 11]);
  await data.scanner.close();
});

test("Scanner ends a scan whose signal is aborted", async () => {
  using data = volume(1);
  const result = await data.scanner.scan({
    signal: AbortSignal.abort(),
    onBatch: () => undefined,
  });
  expect(result.outcome).toBe("cancelled");
});

test("Scanner says what it cannot use, and goes on with the next scan", async () => {
  using data = volume(1);
  const broken = new Scanner({ volume: data.path, index: join(data.path, "none.sqlite") });
  const failed = broken.scan({ onBatch: () => undefined });
  await expect(failed).rejects.toThrow("Cannot scan the volume");
  writeFileSync(join(data.path, "none.sqlite"), "");
  await expect(broken.scan({ onBatch: () => undefined })).rejects.toThrow();
});
