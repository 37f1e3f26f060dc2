import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { lastSyncFile } from "../../sidecar/src/backup/commit/last-sync.ts";
import { Replicator } from "../../sidecar/src/backup/commit/replicator.ts";
import { keys } from "../../sidecar/src/backup/format/format.ts";
import { Index } from "../../sidecar/src/backup/index.ts";
import { Checkpoints } from "../../sidecar/src/backup/keep/checkpoints.ts";
import { DirtySet } from "../../sidecar/src/backup/notice/dirty.ts";
import { createIgnore } from "../../sidecar/src/backup/notice/ignore.ts";
import { Scanner } from "../../sidecar/src/backup/notice/scanner.ts";
import { Watcher } from "../../sidecar/src/backup/notice/watcher.ts";
import { ReadContext } from "../../sidecar/src/backup/read/read-context.ts";
import { readPath } from "../../sidecar/src/backup/read/reader.ts";
import { systemClock as clock } from "../../sidecar/src/platform/clock.ts";
import { createLogger } from "../../sidecar/src/platform/log.ts";
import { CountingStore } from "../../sidecar/src/store/counting.ts";
import { DirectoryStore } from "../../sidecar/src/store/directory.ts";
import { probeConditionalPut } from "../../sidecar/src/store/probe.ts";
import { Root } from "../../sidecar/src/volume/root.ts";

/**
 * Prints how long a change takes until it is durable in a store in a folder, and what a commit costs; also the first upload
 * of FILES files of 4 KiB. Usage: bun commit.ts [CHANGES] [FILES].
 */
const changes = Number(process.argv[2] ?? 40);
const files = Number(process.argv[3] ?? 10_000);
const base = realpathSync(mkdtempSync(join(tmpdir(), "sidecar-bench-")));
const volume = join(base, "data");
const never = new AbortController().signal;
let recorded: () => void = () => undefined;
try {
  mkdirSync(join(volume, ".sidecar"), { recursive: true });
  for (let n = 0; n < files; n += 1) {
    const folder = join(volume, "workspace", `folder-${n % 100}`);
    if (n < 100) mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${n}.bin`), crypto.getRandomValues(new Uint8Array(4096)));
  }
  const indexPath = join(volume, ".sidecar", "index.sqlite");
  using root = new Root(volume);
  using index = new Index(indexPath);
  const ignore = createIgnore();
  const log = createLogger({ level: "warn" });
  const store = new CountingStore(new DirectoryStore(join(base, "store")));
  using context = new ReadContext({ root, index, ignore, clock });
  const dirty = new DirtySet({ clock, onDue: () => replicator.wake() });
  const scanner = new Scanner({ volume, index: indexPath });
  const replicator: Replicator = new Replicator({
    store,
    index,
    dirty,
    read: (path) => readPath(path, context),
    scan: (request) => scanner.scan(request),
    clock,
    log,
    user: "bench",
    machine: "bench",
    fence: "on",
    probe: (signal) => probeConditionalPut(store, keys.probe, { signal, clock }),
    lastSync: lastSyncFile(root, log),
    checkpoints: new Checkpoints({
      store,
      index,
      snapshot: () => new Index(indexPath, { readonly: true }).freeze(),
      clock,
      log,
      user: "bench",
      machine: "bench",
    }),
    onRecorded: () => context.startBatch(),
    counts: () => store.counts,
    budget: 10_000_000,
    at: (point) => {
      if (point === "recorded") recorded();
    },
  });
  const watcher = new Watcher({
    path: volume,
    ignore: () => ignore,
    onDirty: (path, kind) => dirty.hint(path, kind),
    onLost: () => replicator.rescan(),
  });
  await watcher.start();
  let cpu = process.cpuUsage();
  let start = performance.now();
  await replicator.start(never);
  await replicator.flush(never);
  report(`first upload of ${files} files of 4 KiB`, performance.now() - start, cpu);
  await Bun.sleep(5_000);
  const latencies: number[] = [];
  const before = index.head()?.position ?? 0;
  cpu = process.cpuUsage();
  for (let n = 0; n < changes; n += 1) {
    await Bun.sleep(1_500);
    const content = `change ${n} ${crypto.randomUUID()}`;
    const hash = new Bun.CryptoHasher("sha256").update(content).digest("hex");
    start = performance.now();
    writeFileSync(join(volume, "workspace", "notes.md"), content);
    while (!index.locate(hash)) {
      await new Promise<void>((resolve) => {
        recorded = resolve;
      });
    }
    latencies.push(performance.now() - start);
  }
  const used = process.cpuUsage(cpu);
  const commits = (index.head()?.position ?? 0) - before;
  latencies.sort((a, b) => a - b);
  const at = (share: number): string =>
    (latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] ?? 0).toFixed(
      0,
    );
  console.log(`change to durable: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms (${changes} changes)`);
  console.log(
    `${commits} commits, ${((used.user + used.system) / 1000 / commits).toFixed(1)} ms of CPU each, with all that goes on beside them`,
  );
  console.log(`RSS ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`);
  await watcher.stop();
  await replicator.stop(never);
  await scanner.close();
  dirty.close();
} finally {
  rmSync(base, { recursive: true, force: true });
}

function report(what: string, ms: number, since: NodeJS.CpuUsage): void {
  const used = process.cpuUsage(since);
  console.log(
    `${what}: ${ms.toFixed(0)} ms, ${((used.user + used.system) / 1000).toFixed(0)} ms of CPU, ` +
      `RSS ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`,
  );
}
