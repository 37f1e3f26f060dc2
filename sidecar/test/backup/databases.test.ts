import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { bootVolume } from "../../src/backup/boot/boot.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { Store } from "../../src/store/store.ts";
import { Root } from "../../src/volume/root.ts";
import { countRows, startWriter } from "../support/database-writer.ts";
import { FILL, otherProcess } from "../support/databases.ts";
import { bring, filesAt, liveBackup } from "../support/live-backup.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

// The machine may be busy.
setDefaultTimeout(150_000);

const MIB = 1024 * 1024;
const LOG = /-(?:wal|shm|journal)$/;

const SMALL_FILES = 20;

type Live = Awaited<ReturnType<typeof liveBackup>>;

/** Writes a file, and resolves with how many milliseconds it took until it was durable. */
async function untilDurable(live: Live, volume: string, path: string): Promise<number> {
  mkdirSync(dirname(join(volume, path)), { recursive: true });
  const content = `${path} ${crypto.randomUUID()}`;
  const start = performance.now();
  writeFileSync(join(volume, path), content);
  await until(() => live.has(path, content), `${path} to be durable`, 60_000);
  return performance.now() - start;
}

/** CPU time of the processes of ours that have ended, in milliseconds. */
function endedMs(): number {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // cutime and cstime, in hundredths of a second.
  return 10 * (Number(fields[13]) + Number(fields[14]));
}

/** Checks every database at every position from 1 on; by path, how many rows it has at each position that has it. */
async function rowsByPosition(store: Store, last: number) {
  using scratch = tempDir();
  const known = new Map<string, number>();
  const rows = new Map<string, Map<number, number>>();
  for (let position = 1; position <= last; position += 1) {
    for (const entry of await filesAt(store, position)) {
      expect([position, entry.path]).not.toEqual([position, expect.stringMatching(LOG)]);
      if (entry.sqlite !== true) continue;
      let count = known.get(entry.sha256);
      if (count === undefined) {
        const path = await bring(store, entry, scratch.path);
        count = countRows(path);
        known.set(entry.sha256, count);
        rmSync(path);
      }
      const positions = rows.get(entry.path) ?? new Map<number, number>();
      rows.set(entry.path, positions.set(position, count));
    }
  }
  return { rows, copies: known.size };
}

test("every position of a live database's history is that database at one moment, with all that was committed before it was read", async () => {
  using objects = tempDir();
  using volume = tempDir();
  using logs = tempDir();
  const store = new DirectoryStore(objects.path);
  const folder = join(volume.path, "openclaw/state");
  mkdirSync(folder, { recursive: true });
  const writer = (name: string, options: { mode: "wal" | "delete"; fillBytes?: number }) =>
    startWriter({ path: join(folder, name), log: join(logs.path, name), ...options });
  await using wal = await writer("wal.sqlite", { mode: "wal" });
  await using journal = await writer("journal.sqlite", { mode: "delete" });
  await using large = await writer("large.sqlite", { mode: "wal", fillBytes: 100 * MIB });
  const writers = { "wal.sqlite": wal, "journal.sqlite": journal, "large.sqlite": large };
  await using live = await liveBackup(store, volume.path);
  const { backup } = live;
  const synced: { readonly position: number; readonly before: Readonly<Record<string, number>> }[] =
    [];
  const sync = async (): Promise<void> => {
    const before = Object.fromEntries(
      Object.entries(writers).map(([name, one]) => [name, one.written().rows]),
    );
    const { position } = await backup.flush(AbortSignal.timeout(60_000));
    synced.push({ position, before });
  };
  // For a while nobody asks: what it costs then is what it costs all day. Small files come and go meanwhile.
  const [cpuMs, start] = [endedMs(), performance.now()];
  const delays: Promise<number>[] = [];
  for (let n = 0; n < SMALL_FILES; n += 1) {
    await until(() => performance.now() - start >= n * 400, "the next file's turn");
    delays.push(untilDurable(live, volume.path, `workspace/small-${n}.md`));
  }
  const slowest = Math.max(...(await Promise.all(delays)));
  expect(slowest).toBeLessThan(15_000);
  await until(
    () => Object.keys(writers).every((name) => live.holds(`openclaw/state/${name}`)),
    "every database to be in the backup without being asked for",
    60_000,
  );
  const share = (endedMs() - cpuMs) / (performance.now() - start) / 3;
  for (let n = 0; n < 3; n += 1) await sync();
  await live.stop();
  const last = backup.status().position;
  const { rows, copies } = await rowsByPosition(store, last);
  for (const { position, before } of synced) {
    for (const [name, committed] of Object.entries(before)) {
      const count = rows.get(`openclaw/state/${name}`)?.get(position);
      expect([name, position, count]).toEqual([name, position, expect.any(Number)]);
      expect(count).toBeGreaterThanOrEqual(committed);
    }
  }
  for (const positions of rows.values()) {
    const counts = [...positions.values()];
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
  }
  for (const [name, one] of Object.entries(writers)) {
    const { rows: all, longestMs } = one.written();
    console.log(`${name}: ${all} transactions, the longest ${longestMs.toFixed(0)} ms`);
  }
  console.log(
    `small files were durable after ${slowest.toFixed(0)} ms at most; ${last} positions, ${copies} copies; reading took ${(100 * share).toFixed(1)} % of a core per database`,
  );

  using other = tempDir();
  using root = new Root(other.path);
  const outcome = await bootVolume(
    {
      root,
      user: "user-1",
      machine: "machine-2",
      store,
      clock: systemClock,
      treeEqualsIndex: async () => false,
    },
    AbortSignal.timeout(60_000),
  );
  expect(outcome).toMatchObject({ state: "ready", position: last, unrestored: [] });
  if (outcome.state === "ready") outcome.index?.[Symbol.dispose]();
  const restored = join(other.path, "openclaw/state");
  expect(readdirSync(restored).sort()).toEqual(Object.keys(writers).sort());
  for (const name of Object.keys(writers))
    expect(countRows(join(restored, name))).toBe(
      rows.get(`openclaw/state/${name}`)?.get(last) ?? -1,
    );
});

test("databases that cannot be read hold up nothing else, and not the last commit", async () => {
  using objects = tempDir();
  using volume = tempDir();
  const store = new DirectoryStore(objects.path);
  const at = (name: string): string => join(volume.path, "workspace", name);
  mkdirSync(at(""), { recursive: true });
  // Opening its journal waits for somebody who never comes.
  await using stuck = await otherProcess(
    at("stuck.db"),
    `db.run("PRAGMA journal_mode = WAL"); ${FILL}`,
    "setTimeout(() => {}, 100_000)",
  );
  Bun.spawnSync(["mkfifo", at("stuck.db-journal")]);
  // Locked for good, and never the same for two moments.
  await using locked = await otherProcess(
    at("locked.db"),
    `db.run("PRAGMA locking_mode = EXCLUSIVE"); db.run("PRAGMA journal_mode = WAL"); db.run("PRAGMA synchronous = OFF"); ${FILL}
     db.run("INSERT INTO t (x) VALUES (zeroblob(20000000))");`,
    `const start = Date.now(); const turn = () => { db.run("UPDATE t SET x = x || 'a' WHERE id = 1");
     if (Date.now() - start < 100_000) setTimeout(turn, 1); }; turn();`,
  );
  await using good = await otherProcess(
    at("good.db"),
    `db.run("PRAGMA journal_mode = WAL"); ${FILL}`,
    "setTimeout(() => {}, 100_000)",
  );
  void [stuck, locked, good];
  await using live = await liveBackup(store, volume.path);
  const delays: number[] = [];
  for (let n = 0; n < 5; n += 1)
    delays.push(await untilDurable(live, volume.path, `workspace/${n}.md`));
  await until(() => live.holds("workspace/good.db"), "the database that can be read", 60_000);
  expect(live.holds("workspace/stuck.db")).toBe(false);
  // Each reading of those two takes many seconds.
  expect(Math.max(...delays)).toBeLessThan(12_000);
  console.log(
    `files beside databases that cannot be read were durable after ${Math.max(...delays).toFixed(0)} ms at most`,
  );
  writeFileSync(at("last.md"), "the last words");
  await live.stop(AbortSignal.timeout(8_000));
  expect(live.has("workspace/last.md", "the last words")).toBe(true);
  const files = await filesAt(store, live.backup.status().position);
  expect(files.map(({ path }) => path)).toContain("workspace/last.md");
  expect(files.filter(({ path }) => LOG.test(path))).toEqual([]);
});

test("a database that gets damaged stays as it was in the backup, the status says so, and it goes on when it is mended", async () => {
  using objects = tempDir();
  using volume = tempDir();
  const store = new DirectoryStore(objects.path);
  const path = join(volume.path, "workspace/notes.db");
  mkdirSync(dirname(path));
  {
    await using _ = await otherProcess(
      path,
      `${FILL} db.run("CREATE INDEX i ON t (x)"); db.close()`,
    );
  }
  const good = readFileSync(path);
  await using live = await liveBackup(store, volume.path);
  const { backup } = live;
  const sync = (): Promise<{ readonly position: number }> =>
    backup.flush(AbortSignal.timeout(30_000));
  const newest = async () => {
    const files = await filesAt(store, backup.status().position);
    return files.find((entry) => entry.path === "workspace/notes.db");
  };
  await sync();
  const first = await newest();
  expect(first).toMatchObject({ sqlite: true, size: good.length });

  writeFileSync(path, Buffer.from(good).fill(0xaa, 8_192, 20_480));
  await until(
    () => backup.status().skipped.some(({ reason }) => reason === "corrupt_database"),
    "the status to say so",
    30_000,
  );
  writeFileSync(join(volume.path, "workspace/other.md"), "other");
  await until(() => live.has("workspace/other.md", "other"), "other files to be committed", 30_000);
  expect(await newest()).toMatchObject({ sqlite: true, sha256: first?.sha256 });

  writeFileSync(path, good);
  {
    await using _ = await otherProcess(
      path,
      `db.run("INSERT INTO t (x) VALUES ('mended')"); db.close()`,
    );
  }
  await until(async () => (await newest())?.sha256 !== first?.sha256, "the next copy", 60_000);
  expect(backup.status().skipped).toEqual([]);
  expect(await newest()).toMatchObject({ sqlite: true });
});
