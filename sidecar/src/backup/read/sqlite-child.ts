import {
  ftruncateSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { DatabaseSync, backup } from "node:sqlite";

import type { ChildAnswer, ChildJob } from "./sqlite-process.ts";

/**
 * A process of its own that reads databases through SQLite and in no other way: closing any other descriptor of such a
 * file would give up the locks SQLite holds on it. Jobs are the argument, answers are lines of standard output.
 * It ends without closing a database, because the last one to close it would write its log back into it.
 */

const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
/** Enough for any database in one step: a foreign commit between two steps would start the copy anew. */
const ALL_PAGES = 2 ** 31 - 1;
/** How long SQLite waits for a lock. */
const BUSY_MS = 2_000;
/** A schema can ask for values of any size to be made up while it is checked. */
const CHECKED_VALUE_BYTES = 64 * 1024 * 1024;
const CHECKED = { limits: { length: CHECKED_VALUE_BYTES } };
const MAX_FINDINGS = 100;
/** What the content of rows breaks is the owner's own rules: every page is still where it belongs. */
const RULES =
  /^(?:CHECK constraint failed in|(?:NULL|TEXT|NUMERIC|non-\w+) value in|malformed inverted index for)/;

interface Failure {
  readonly kind: "corrupt" | "not_a_database" | "failed" | "lost";
  readonly message: string;
}

type Outcome = { readonly kind: "copied" } | Failure;

/** Kept, so that none is closed by the garbage collector either. */
const held: DatabaseSync[] = [];

goFirst();
writeSync(1, "ready\n");
for (const job of JSON.parse(process.argv[2] ?? "[]") as ChildJob[]) answer(await run(job));
// An ordinary exit could close them.
process.kill(process.pid, "SIGKILL");

/** Where memory runs out, this process is what is ended. */
function goFirst(): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", "1000");
  } catch {
    // Where that is not for us to say, things are as they were.
  }
}

async function run(job: ChildJob): Promise<ChildAnswer> {
  const start = performance.now();
  const result = await copy(job).catch(failure);
  return { ...result, tookMs: performance.now() - start };
}

async function copy(job: ChildJob): Promise<Outcome> {
  const earlier = new Set(descriptors().map(([fd]) => fd));
  const database = open(`/proc/self/fd/${job.folder}/${job.name}`, job.mode);
  const main = descriptorOf(job);
  if (main === undefined) return { kind: "lost", message: "another file is in its place" };
  const damage = job.target === undefined ? serialize(database, job) : await backUp(database, job);
  const stranger = strangerBeside(main, earlier);
  if (stranger !== undefined) return { kind: "lost", message: "its log is another folder's" };
  return damage === undefined ? { kind: "copied" } : { kind: "corrupt", message: damage };
}

function open(path: string, mode: ChildJob["mode"]): DatabaseSync {
  return hold(new DatabaseSync(uriOf(path, mode), { readOnly: mode !== "own", timeout: BUSY_MS }));
}

function uriOf(path: string, mode: ChildJob["mode"]): string {
  const query = { rest: "?mode=ro&immutable=1", shared: "?mode=ro", own: "?mode=rw" }[mode];
  return `file:${path.split("/").map(encodeURIComponent).join("/")}${query}`;
}

function hold(database: DatabaseSync): DatabaseSync {
  held.push(database);
  return database;
}

/** Writes the whole database into the open file `job.output`. Returns what is damaged, if it was asked. */
function serialize(database: DatabaseSync, job: ChildJob): string | undefined {
  const bytes = database.serialize();
  // A process that was ended may have begun.
  ftruncateSync(job.output, 0);
  for (let offset = 0; offset < bytes.length;) {
    offset += writeSync(job.output, bytes, offset, bytes.length - offset, offset);
  }
  if (!job.check) return undefined;
  // A database in memory has no write-ahead log, and one that says it does is refused.
  bytes.fill(1, 18, 20);
  const copied = new DatabaseSync(":memory:", CHECKED);
  copied.deserialize(bytes);
  return check(copied);
}

async function backUp(database: DatabaseSync, job: ChildJob): Promise<string | undefined> {
  const target = job.target ?? "";
  await backup(database, target, { rate: ALL_PAGES });
  if (!job.check) return undefined;
  return check(hold(new DatabaseSync(uriOf(target, "rest"), { readOnly: true, ...CHECKED })));
}

/** Says what is damaged. What cannot be checked here, because its schema needs functions or collations of its owner's, is not damaged for that. */
function check(database: DatabaseSync): string | undefined {
  try {
    database.exec("PRAGMA ignore_check_constraints = ON");
    const rows = database.prepare(`PRAGMA quick_check(${MAX_FINDINGS})`).all();
    const findings = rows.map((row) => String(row["quick_check"]));
    return findings.find((finding) => finding !== "ok" && !RULES.test(finding));
  } catch (error) {
    const found = failure(error);
    return found.kind === "corrupt" || found.kind === "not_a_database" ? found.message : undefined;
  }
}

/** Where the file that SQLite opened really is, if it is the one that was meant. */
function descriptorOf(job: ChildJob): string | undefined {
  for (const [fd, target] of descriptors()) {
    const stat = statSync(`/proc/self/fd/${fd}`, { bigint: true, throwIfNoEntry: false });
    if (stat?.isFile() && `${stat.dev}:${stat.ino}` === job.inode) return target;
  }
  return undefined;
}

/** A log or shared memory that was opened and does not lie beside `main`: the folder was swapped between the two. */
function strangerBeside(main: string, earlier: ReadonlySet<number>): string | undefined {
  for (const [fd, target] of descriptors()) {
    const plain = target.replace(/ \(deleted\)$/, "");
    if (earlier.has(fd) || plain === main || !/-(?:wal|shm|journal)$/.test(plain)) continue;
    if (!["-wal", "-shm", "-journal"].some((suffix) => plain === main + suffix)) return plain;
  }
  return undefined;
}

function descriptors(): [number, string][] {
  const found: [number, string][] = [];
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      found.push([Number(fd), readlinkSync(`/proc/self/fd/${fd}`)]);
    } catch {
      // The one that lists the others is closed by now.
    }
  }
  return found;
}

function failure(error: unknown): Failure {
  const code = (error as { errcode?: number }).errcode ?? 0;
  const { message } = error as Error;
  // The low byte is the kind of error, the rest says more about it.
  if ((code & 0xff) === SQLITE_NOTADB) return { kind: "not_a_database", message };
  if ((code & 0xff) === SQLITE_CORRUPT) return { kind: "corrupt", message };
  return { kind: "failed", message: code === 0 ? message : `${message} (SQLite ${code})` };
}

function answer(result: ChildAnswer): void {
  writeSync(1, `${JSON.stringify(result)}\n`);
}
