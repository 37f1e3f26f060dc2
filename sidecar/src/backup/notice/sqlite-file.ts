import { closeSync, readSync, type BigIntStats } from "node:fs";

import type { Dir } from "../../volume/dir.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { logStampOf } from "../stamp.ts";

const HEADER = Buffer.from("SQLite format 3\0", "latin1");
/** A rollback journal that was ended starts with zeroes instead, or is empty. */
const JOURNAL_HEADER = Buffer.from("d9d505f920a163d7", "hex");

/** True if these first bytes of a file are those of a SQLite database. */
export function isSqliteHeader(bytes: Uint8Array): boolean {
  return bytes.length >= HEADER.length && HEADER.equals(bytes.subarray(0, HEADER.length));
}

/**
 * True if `name` is a regular file that starts as a SQLite database does. No process that holds locks on the file may ask:
 * closing any descriptor of a file gives up all POSIX locks its process has on it. The sidecar never holds any on the agent's.
 */
export function hasSqliteHeader(dir: Dir, name: string): boolean {
  return startsWith(dir, name, HEADER);
}

/** What SQLite keeps beside a database and a reader of it needs. */
export interface Log {
  /** "wal", or "journal" where a transaction was cut off or is going on. */
  readonly kind: "wal" | "journal";
  readonly name: string;
  readonly stat: BigIntStats;
  /** From `logStampOf`. */
  readonly stamp: string;
}

/** The write-ahead log or journal of the database `name`, if it has content. */
export function logOf(dir: Dir, name: string): Log | undefined {
  for (const kind of ["wal", "journal"] as const) {
    const log = `${name}-${kind}`;
    const stat = lstatIfThere(dir, log);
    if (!stat?.isFile() || stat.size === 0n) continue;
    return { kind, name: log, stat, stamp: logStampOf(stat) };
  }
  return undefined;
}

/** True if the journal `name` holds pages that must be put back before the database can be read. */
export function isHotJournal(dir: Dir, name: string): boolean {
  return startsWith(dir, name, JOURNAL_HEADER);
}

function lstatIfThere(dir: Dir, name: string): BigIntStats | undefined {
  try {
    return dir.lstat(name);
  } catch (error) {
    // A name that is too long with its suffix cannot be there either.
    if (isVolumeError(error, "missing", "bad_name")) return undefined;
    throw error;
  }
}

function startsWith(dir: Dir, name: string, start: Buffer): boolean {
  let fd: number;
  try {
    fd = dir.openFile(name);
  } catch (error) {
    // No descriptors left, or a disk that fails, says nothing about the file: a database is never taken for none because of it.
    if (!isVolumeError(error) || error.kind === "failing") throw error;
    return false;
  }
  try {
    const bytes = Buffer.alloc(start.length);
    return readSync(fd, bytes, 0, start.length, 0) === start.length && bytes.equals(start);
  } finally {
    closeSync(fd);
  }
}
