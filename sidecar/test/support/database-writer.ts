import { Database } from "bun:sqlite";
import { openSync, readFileSync, writeFileSync, writeSync } from "node:fs";

/** A database that another process writes to, row after row. */
export interface WriterOptions {
  readonly path: string;
  readonly mode: "wal" | "delete";
  /** Where it says how far it is; not on the volume. */
  readonly log: string;
  /** The database has so many bytes before the first row. */
  readonly fillBytes?: number;
  readonly forMs?: number;
}

export interface Written {
  /** Rows 1 to this one are committed. */
  readonly rows: number;
  readonly longestMs: number;
}

const PER_TURN = 4;
const PAUSE_MS = 6;

/** Starts a process that commits hundreds of rows a second, each of two tables in one transaction. */
export async function startWriter(options: WriterOptions) {
  writeFileSync(options.log, format({ rows: 0, longestMs: 0 }));
  const child = Bun.spawn([process.execPath, import.meta.path, JSON.stringify(options)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const { done } = await child.stdout.getReader().read();
  if (done) throw new Error("The writer could not make its database");
  return {
    written(): Written {
      const [rows = 0, longestMs = 0] = readFileSync(options.log, "utf8").split(" ").map(Number);
      return { rows, longestMs };
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** Fails unless `path` is a whole database with rows 1 to n and nothing else; returns n. */
export function countRows(path: string): number {
  using database = new Database(path, { readonly: true });
  const said = database.query("PRAGMA integrity_check").values();
  if (String(said) !== "ok") throw new Error(`${path} is damaged: ${String(said)}`);
  const row = (sql: string): unknown[] => database.query(sql).values()[0] ?? [];
  if (row("SELECT count(*) FROM sqlite_schema WHERE name = 'last'")[0] === 0) return 0;
  const [count = 0, least, most] = row("SELECT count(*), min(id), max(id) FROM t").map(Number);
  if (count === 0) return 0;
  const [last] = row("SELECT id FROM last").map(Number);
  if (least !== 1 || most !== count || last !== count)
    throw new Error(`${path} has ${count} rows from ${least} to ${most}, the last being ${last}`);
  return count;
}

function format({ rows, longestMs }: Written): string {
  return `${rows} ${longestMs.toFixed(1)}`.padEnd(40);
}

function write({ path, mode, log, fillBytes = 0, forMs = 100_000 }: WriterOptions): void {
  const database = new Database(path, { create: true });
  database.run(`PRAGMA journal_mode = ${mode}`);
  database.run("PRAGMA busy_timeout = 20000");
  database.run("PRAGMA synchronous = OFF");
  if (fillBytes > 0) {
    database.run("CREATE TABLE fill (x)");
    const fill = database.query("INSERT INTO fill VALUES (randomblob(100000))");
    for (let bytes = 0; bytes < fillBytes; bytes += 100_000) fill.run();
  }
  database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, x)");
  database.run("CREATE TABLE last (id)");
  database.run("INSERT INTO last VALUES (0)");
  const insert = database.query("INSERT INTO t VALUES (?, randomblob(300))");
  const update = database.query("UPDATE last SET id = ?");
  const commit = database.transaction((id: number) => {
    insert.run(id);
    update.run(id);
  });
  const output = openSync(log, "r+");
  const start = performance.now();
  let rows = 0;
  let longestMs = 0;
  const turn = (): void => {
    for (let n = 0; n < PER_TURN; n += 1) {
      const before = performance.now();
      commit.immediate(rows + 1);
      rows += 1;
      longestMs = Math.max(longestMs, performance.now() - before);
      writeSync(output, format({ rows, longestMs }), 0);
    }
    if (performance.now() - start < forMs) setTimeout(turn, PAUSE_MS);
  };
  writeSync(1, "ready\n");
  turn();
}

if (import.meta.main) write(JSON.parse(process.argv[2] ?? "{}") as WriterOptions);
