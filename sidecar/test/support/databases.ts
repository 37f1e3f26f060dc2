import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Index } from "../../src/backup/index.ts";
import { createIgnore } from "../../src/backup/notice/ignore.ts";
import { ReadContext, type ReadContextOptions } from "../../src/backup/read/read-context.ts";
import type { Reading } from "../../src/backup/read/reading.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { Root } from "../../src/volume/root.ts";

export interface DatabaseVolume extends Disposable {
  readonly path: string;
  readonly index: Index;
  readonly context: ReadContext;
  readonly rests: Map<string, number>;
}

/** An empty folder, and all it takes to read databases in it. */
export function databaseVolume(options: Partial<ReadContextOptions> = {}): DatabaseVolume {
  const path = mkdtempSync(join(tmpdir(), "sidecar-test-"));
  const index = new Index(":memory:");
  const root = new Root(path);
  const rests = new Map<string, number>();
  const context = new ReadContext({
    root,
    index,
    ignore: createIgnore(),
    clock: systemClock,
    onRest: (name, ms) => rests.set(name, ms),
    ...options,
  });
  return {
    path,
    index,
    context,
    rests,
    [Symbol.dispose]() {
      context[Symbol.dispose]();
      root[Symbol.dispose]();
      index[Symbol.dispose]();
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** What would be sent of a reading. */
export async function copyOf(reading: Reading): Promise<Buffer> {
  if (reading.kind !== "changed") throw new Error(JSON.stringify(reading));
  const { content } = reading;
  if (content?.kind === "inline") return Buffer.from(content.bytes);
  if (content?.kind !== "blob") throw new Error("no content");
  const chunks: Uint8Array[] = [];
  for await (const chunk of content.source.open()) chunks.push(chunk);
  content.dispose();
  return Buffer.concat(chunks);
}

/** Opens the copy as whoever gets it back would. */
export async function opened(reading: Reading, dir: string): Promise<Database> {
  if (reading.kind === "changed" && reading.item.entry.type === "file") {
    expect(reading.item.entry.sqlite).toBe(true);
  }
  const path = join(dir, `${crypto.randomUUID()}.db`);
  writeFileSync(path, await copyOf(reading));
  const database = new Database(path);
  expect(database.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
  return database;
}

export function rowsOf(database: Database, table = "t"): number {
  return database.query<{ n: number }, []>(`SELECT count(*) AS n FROM ${table}`).get()?.n ?? -1;
}

/** Makes a database in another process, which says "ready" and then does `rest`, for 20 s at most. */
export async function otherProcess(
  path: string,
  script: string,
  rest = "setTimeout(() => {}, 20_000)",
) {
  const child = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const { Database } = require("bun:sqlite"); const fs = require("node:fs");
       const path = ${JSON.stringify(path)}; const db = new Database(path, { create: true }); globalThis.db = db;
       ${script}; fs.writeSync(1, "ready\\n"); ${rest}`,
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  if (done) throw new Error("The other process could not make the database");
  return {
    reader,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** For `otherProcess`: 500 rows. */
export const FILL = `db.run("CREATE TABLE t (id INTEGER PRIMARY KEY, x)");
  db.transaction(() => { for (let i = 0; i < 500; i += 1) db.run("INSERT INTO t (x) VALUES (?)", ["y".repeat(300)]); })();`;
