import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Index, type IndexedEntry } from "../../sidecar/src/backup/index.ts";
import { createIgnore } from "../../sidecar/src/backup/notice/ignore.ts";
import { Scanner } from "../../sidecar/src/backup/notice/scanner.ts";
import { ReadContext } from "../../sidecar/src/backup/read/read-context.ts";
import { readPath } from "../../sidecar/src/backup/read/reader.ts";
import { systemClock } from "../../sidecar/src/platform/clock.ts";
import { Root } from "../../sidecar/src/volume/root.ts";

/** Prints what a scan of FILES unchanged files takes, and how long the main loop stood still meanwhile. Usage: bun scan.ts [FILES]. */
const files = Number(process.argv[2] ?? 100_000);
const perFolder = 100;
const base = mkdtempSync(join(tmpdir(), "sidecar-bench-"));
try {
  const volume = join(base, "data");
  mkdirSync(join(base, "data", ".sidecar", "staging"), { recursive: true });
  for (let folder = 0; folder < files / perFolder; folder += 1) {
    const path = join(volume, "workspace", `folder-${folder}`);
    mkdirSync(path, { recursive: true });
    for (let file = 0; file < perFolder; file += 1) {
      writeFileSync(join(path, `file-${file}.txt`), `${folder} ${file}`);
    }
  }
  const indexPath = join(volume, ".sidecar", "index.sqlite");
  using index = new Index(indexPath);
  using root = new Root(volume);
  const scanner = new Scanner({ volume, index: indexPath });
  const first: string[] = [];
  const found = await watched("first scan (all new)", () =>
    scanner.scan({ onBatch: (batch) => first.push(...batch.changed) }),
  );
  using context = new ReadContext({ root, index, ignore: createIgnore(), clock: systemClock });
  const items: IndexedEntry[] = [];
  await watched("read all of them", async () => {
    for (const path of first) {
      const reading = await readPath(path, context);
      if (reading.kind === "changed") items.push({ ...reading.item, racy: false });
    }
  });
  // oxlint-disable-next-line unicorn/no-array-fill-with-reference-type -- this is no array
  index.fill({ head: undefined, checkpoint: undefined, headers: [], entries: items });
  console.log(`${found.entries} entries, ${items.length} in the index`);
  for (let round = 1; round <= 3; round += 1) {
    const cpu = process.cpuUsage();
    const result = await watched(`scan ${round} (unchanged)`, () =>
      scanner.scan({ onBatch: () => undefined }),
    );
    const used = process.cpuUsage(cpu);
    console.log(
      `  the scan itself ${result.durationMs.toFixed(0)} ms, ${result.changed} changed, ${result.gone} gone, ` +
        `CPU ${((used.user + used.system) / 1000).toFixed(0)} ms, RSS ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`,
    );
  }
} finally {
  rmSync(base, { recursive: true, force: true });
}

/** Runs `work` and prints its duration and the longest time the loop did not turn. */
async function watched<T>(what: string, work: () => Promise<T>): Promise<T> {
  let last = performance.now();
  let longest = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  const start = performance.now();
  try {
    return await work();
  } finally {
    clearInterval(timer);
    const took = performance.now() - start;
    console.log(`${what}: ${took.toFixed(0)} ms, longest gap of the loop ${longest.toFixed(1)} ms`);
  }
}
