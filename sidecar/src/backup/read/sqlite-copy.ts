import type { BigIntStats } from "node:fs";

import type { Clock } from "../../platform/clock.ts";
import type { Dir, Owner } from "../../volume/dir.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { isHotJournal, logOf, type Log } from "../notice/sqlite-file.ts";
import { stampOf } from "../stamp.ts";
import { COPY_NAME, CopyFolder } from "./copy-folder.ts";
import { OpenFile } from "./open-file.ts";
import type { ChildAnswer, ChildJob } from "./sqlite-process.ts";
import { SqliteQueue } from "./sqlite-queue.ts";

/** Up to this size a database is copied in memory, above it page by page into a file. Source: backup.md, "Read consistently". */
const SERIALIZE_BYTES = 64 * 1024 * 1024;

export interface CopyRequest {
  readonly dir: Dir;
  readonly name: string;
  /** For messages. */
  readonly path: string;
  readonly before: BigIntStats;
  readonly log: Log | undefined;
  /** Also look for damage. */
  readonly check: boolean;
}

/** What a process costs before it looks at its first database, in milliseconds of a core. */
const PROCESS_MS = 20;

/** `tookMs` is what the processes were at work for it. */
export type CopyResult = { readonly tookMs: number } & (
  | {
      /** One consistent state of the database, with its pages in their places, in an open file that the caller closes. */
      readonly kind: "copied";
      readonly file: OpenFile;
      readonly sizeBytes: number;
    }
  /** No database for SQLite, whatever its first bytes say. */
  | { readonly kind: "plain"; readonly message: string }
  | { readonly kind: "corrupt"; readonly message: string }
  | { readonly kind: "busy"; readonly message: string }
);

export interface DatabaseCopierOptions {
  readonly root: Root;
  readonly clock: Clock;
  /** The user that opens the databases, so that no file SQLite makes beside one belongs to anybody else. */
  readonly agent?: Owner | undefined;
  /** Makes a private file without a name, where so many bytes have room. */
  readonly createStaging: (sizeBytes: number) => number;
  /** True if the volume has room for a copy of so many bytes. */
  readonly hasRoom: (sizeBytes: number) => boolean;
}

type Attempt = Exclude<ChildAnswer, { kind: "copied" }> | Extract<CopyResult, { kind: "copied" }>;

/** Copies databases that others are using, through SQLite, in a process of its own. */
export class DatabaseCopier implements Disposable {
  readonly #options: DatabaseCopierOptions;
  readonly #queue: SqliteQueue;
  readonly #stop = new AbortController();

  constructor(options: DatabaseCopierOptions) {
    this.#options = options;
    this.#queue = new SqliteQueue({
      clock: options.clock,
      user: options.agent,
      signal: this.#stop.signal,
    });
  }

  /** Ends the process that is running; what is being copied ends as `busy`. */
  [Symbol.dispose](): void {
    this.#stop.abort(new Error("Cannot copy databases any more: the reader was stopped"));
  }

  /** Throws VolumeError where the files themselves cannot be looked at. */
  async copy(request: CopyRequest): Promise<CopyResult> {
    let tookMs = 0;
    let last: Attempt | undefined;
    const attempts = [
      () => this.#atRest(request),
      () => this.#shared(request),
      () => this.#apart(request),
    ];
    for (const attempt of attempts) {
      const next: Attempt | undefined = await attempt();
      if (next === undefined) continue;
      tookMs += PROCESS_MS + next.tookMs;
      // What SQLite said of the database itself tells more than why a copy of its files could not be made.
      if (!(next.kind === "lost" && last?.kind === "failed")) last = next;
      if (last.kind !== "failed") break;
    }
    return { ...asResult(last, request.path), tookMs };
  }

  /** Reads a database whose log holds nothing and that is not being written, without touching anything. Undefined where it was written after all. */
  async #atRest(request: CopyRequest): Promise<Attempt | undefined> {
    const { dir, name, before, log } = request;
    // A journal that was ended by overwriting its start is as good as none: browsers keep theirs, and their locks, for ever.
    if (log && (log.kind === "wal" || isHotJournal(dir, log.name))) return undefined;
    const result = await this.#read(request, { dir, name, mode: "rest" });
    let holds = false;
    try {
      holds = result.kind !== "failed" && isUntouched(dir, name, { before, log });
    } finally {
      if (!holds && result.kind === "copied") result.file[Symbol.dispose]();
    }
    return holds ? result : undefined;
  }

  /** Reads a database that others may be writing. */
  #shared(request: CopyRequest): Promise<Attempt> {
    return this.#read(request, { dir: request.dir, name: request.name, mode: "shared" });
  }

  /**
   * Reads a database that is locked for good, is not for our user, or was left by a crash with a journal that must be put
   * back: through a copy of its files, in which SQLite may write. If neither of them changed meanwhile, that is what the
   * disk would hold after a power cut, and SQLite knows how to go on from there.
   */
  async #apart(request: CopyRequest): Promise<Attempt | undefined> {
    const { dir, name } = request;
    const { root, agent, hasRoom } = this.#options;
    const before = dir.lstat(name);
    const log = logOf(dir, name);
    if (!hasRoom(2 * sizeOf(before, log))) return lost("the volume has no room for a copy");
    using folder = new CopyFolder(root, agent);
    try {
      await folder.take(dir, name, { as: COPY_NAME, size: before.size });
      const as = `${COPY_NAME}-${log?.kind}`;
      if (log) await folder.take(dir, log.name, { as, size: log.stat.size });
    } catch (error) {
      // The log was removed meanwhile: somebody is writing.
      if (isVolumeError(error, "missing")) return lost("it is written all the time");
      throw error;
    }
    if (!isUntouched(dir, name, { before, log })) return lost("it is written all the time");
    const copy = { ...request, before: folder.dir.lstat(COPY_NAME), log, check: true };
    const result = await this.#read(copy, { dir: folder.dir, name: COPY_NAME, mode: "own" });
    // Whether a journal of several databases is put back depends on a file of theirs that goes when they are all written.
    if (log?.kind !== "journal" || isUntouched(dir, name, { before, log })) return result;
    if (result.kind === "copied") result.file[Symbol.dispose]();
    return lost("it is written all the time");
  }

  async #read(
    request: CopyRequest,
    source: { readonly dir: Dir; readonly name: string; readonly mode: ChildJob["mode"] },
  ): Promise<Attempt> {
    const { root, agent, createStaging, hasRoom } = this.#options;
    const { before, log, check } = request;
    const sizeBytes = sizeOf(before, log);
    const isLarge = sizeBytes > SERIALIZE_BYTES;
    if (isLarge && !hasRoom(sizeBytes)) return lost("the volume has no room for a copy");
    using large = isLarge ? new CopyFolder(root, agent) : undefined;
    using output = new OpenFile(createStaging(isLarge ? 0 : sizeBytes));
    const answer = await this.#queue.ask({
      job: {
        name: source.name,
        inode: `${before.dev}:${before.ino}`,
        mode: source.mode,
        target: large && `${large.path}/${COPY_NAME}`,
        check,
      },
      folder: source.dir,
      output,
      sizeBytes,
    });
    if (answer.kind !== "copied") return answer;
    const file = new OpenFile(large ? large.dir.openFile(COPY_NAME) : output.take());
    return { kind: "copied", file, sizeBytes: Number(file.stat().size), tookMs: answer.tookMs };
  }
}

function asResult(attempt: Attempt | undefined, path: string): CopyResult {
  if (attempt?.kind === "copied") return attempt;
  const message = `Cannot copy the database "${path}": ${attempt?.message ?? "it is written all the time"}`;
  if (attempt?.kind === "not_a_database") return { kind: "plain", message, tookMs: 0 };
  return { kind: attempt?.kind === "corrupt" ? "corrupt" : "busy", message, tookMs: 0 };
}

function sizeOf(main: BigIntStats, log: Log | undefined): number {
  return Number(main.size + (log?.stat.size ?? 0n));
}

function isUntouched(
  dir: Dir,
  name: string,
  was: { readonly before: BigIntStats; readonly log: Log | undefined },
): boolean {
  return (
    stampOf(dir.lstat(name)) === stampOf(was.before) && logOf(dir, name)?.stamp === was.log?.stamp
  );
}

function lost(message: string): Attempt {
  return { kind: "lost", message, tookMs: 0 };
}
