import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { keys, memberName, type Entry } from "../../sidecar/src/backup/format/format.ts";
import { DirectoryStore } from "../../sidecar/src/store/directory.ts";
import { HistoryWriter } from "../../sidecar/test/support/history.ts";

/**
 * Restores 10,000 files of 4 KiB and one file of 1 GiB from a directory store, each in a process of its own, and prints
 * seconds, CPU and the peak of resident memory. `bun bench/backup/restore.ts [files] [MiB]`.
 */
const FILES_PER_COMMIT = 2_000;
const FILE_BYTES = 4_096;
const CHUNK = 1024 * 1024;

const [role, ...rest] = process.argv.slice(2);
if (role === "child") await child(rest[0] ?? "", rest[1] ?? "");
else await main(Number(role ?? 10_000), Number(rest[0] ?? 1_024));

async function main(files: number, mebibytes: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "bench-restore-"));
  try {
    await manySmall(`${dir}/small`, files);
    await run(`${files} files of ${FILE_BYTES} bytes`, `${dir}/small`, `${dir}/small-volume`);
    await oneLarge(`${dir}/large`, mebibytes);
    await run(`one file of ${mebibytes} MiB`, `${dir}/large`, `${dir}/large-volume`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function run(name: string, objects: string, volume: string): Promise<void> {
  mkdirSync(volume);
  const start = performance.now();
  const process = Bun.spawn([Bun.argv[0] ?? "bun", import.meta.path, "child", objects, volume], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const answer = (await new Response(process.stdout).json()) as object;
  await process.exited;
  const usage = process.resourceUsage();
  const report = {
    ...answer,
    processS: round((performance.now() - start) / 1000),
    cpuS: round(Number((usage?.cpuTime.total ?? 0n) / 1000n) / 1000),
  };
  console.log(name, report);
}

async function child(objects: string, volume: string): Promise<void> {
  const { bootVolume } = await import("../../sidecar/src/backup/boot/boot.ts");
  const { systemClock } = await import("../../sidecar/src/platform/clock.ts");
  const { Root } = await import("../../sidecar/src/volume/root.ts");
  const steps: Record<string, string> = {};
  let longestMs = 0;
  let peak = 0;
  let last = performance.now();
  const pulse = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - last - 5);
    peak = Math.max(peak, process.memoryUsage.rss());
    last = performance.now();
  }, 5);
  const start = performance.now();
  const outcome = await bootVolume(
    {
      root: new Root(volume),
      user: "me",
      machine: "bench",
      store: new DirectoryStore(objects),
      clock: systemClock,
      treeEqualsIndex: async () => true,
      onStep: (step) => {
        const mebibytes = Math.round(peak / 1024 / 1024);
        steps[step] =
          `${round((performance.now() - start) / 1000)} s, peak before ${mebibytes} MiB`;
        peak = 0;
      },
    },
    new AbortController().signal,
  );
  clearInterval(pulse);
  if (outcome.state !== "ready") throw new Error(outcome.message);
  const seconds = round((performance.now() - start) / 1000);
  process.stdout.write(
    JSON.stringify({
      seconds,
      ...steps,
      longestBlockMs: Math.round(longestMs),
      peakMiB: highWater(),
    }),
  );
  process.exit(0);
}

/** Of this process since it began its program; `maxRSS` of a child counts what its parent had as well. */
function highWater(): number {
  const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  return Math.round(Number(line?.[1] ?? 0) / 1024);
}

/** Written commit by commit, as a first upload would be. */
async function manySmall(objects: string, files: number): Promise<void> {
  const writer = new HistoryWriter(new DirectoryStore(objects));
  for (let from = 0; from < files; from += FILES_PER_COMMIT) {
    const members = new Map<string, Uint8Array>();
    const entries: Entry[] = [];
    const folders = new Set<string>();
    for (let n = from; n < Math.min(files, from + FILES_PER_COMMIT); n += 1) {
      const folder = `workspace/${String(n % 100).padStart(2, "0")}`;
      folders.add(folder);
      const path = `${folder}/${n}.txt`;
      const bytes = crypto.getRandomValues(new Uint8Array(FILE_BYTES));
      const member = memberName(path);
      members.set(member, bytes);
      const position = (writer.head?.position ?? 0) + 1;
      const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
      const extents = [{ commit: position, member, offset: 0, length: FILE_BYTES }];
      const mtimeNs = String(1_700_000_000_000_000_000n + BigInt(n));
      entries.push({ type: "file", path, mode: 0o644, mtimeNs, size: FILE_BYTES, sha256, extents });
    }
    for (const path of ["workspace", ...folders]) {
      entries.push({ type: "directory", path, mode: 0o755, mtimeNs: "1700000000000000000" });
    }
    await writer.commit({ entries, members });
  }
}

async function oneLarge(objects: string, mebibytes: number): Promise<void> {
  const store = new DirectoryStore(objects);
  const chunk = crypto.getRandomValues(new Uint8Array(65_536));
  const block = Buffer.concat(Array.from({ length: CHUNK / chunk.length }, () => chunk));
  const hasher = new Bun.CryptoHasher("sha256");
  for (let n = 0; n < mebibytes; n += 1) hasher.update(block);
  const sha256 = hasher.digest("hex");
  const size = mebibytes * CHUNK;
  async function* open() {
    for (let n = 0; n < mebibytes; n += 1) yield block;
  }
  await store.put(keys.blob(sha256), { sizeBytes: size, open });
  const extents = [{ blob: sha256, offset: 0, length: size }];
  const mtimeNs = "1700000000000000000";
  await new HistoryWriter(store).commit({
    entries: [{ type: "file", path: "large", mode: 0o644, mtimeNs, size, sha256, extents }],
  });
  writeFileSync(`${objects}/.ready`, "");
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
