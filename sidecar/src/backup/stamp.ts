import type { BigIntStats } from "node:fs";

/**
 * What lstat says of an entry, in one comparable string: as long as it stays the same, so has the content, but for a
 * write within the clock's granularity (see `racy` in index.ts). mtime alone is no identity, it can be set at will;
 * ctime cannot. Undefined for what is never backed up: sockets, FIFOs, devices.
 */
export function stampOf(stat: BigIntStats): string | undefined {
  if (stat.isFile()) {
    return `f:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}:${stat.mode & 0o7777n}`;
  }
  // A folder's ctime moves with each change inside it that its mtime shows as well.
  if (stat.isDirectory()) return `d:${stat.mtimeNs}:${stat.mode & 0o7777n}`;
  if (stat.isSymbolicLink()) return `l:${stat.ino}:${stat.mtimeNs}:${stat.ctimeNs}`;
  return undefined;
}

/**
 * Stands in the index for the stamp of an entry that the history has and a restore could not bring back: its absence on
 * the disk is no deletion, and what the store says it has of it is not to be relied on.
 */
export const UNRESTORED = "unrestored";

/**
 * The same of the log or journal beside a database, without the ctime: SQLite, opened by root, gives these files to the
 * database's owner each time, and every reading would make the next one look necessary. What is written moves the mtime.
 */
export function logStampOf(stat: BigIntStats): string {
  return `f:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}

/**
 * The stamp of a database: that of its main file and of its write-ahead log or journal, either of which may hold the
 * newest rows. `-shm` says nothing.
 */
export function databaseStamp(main: string, log: string | undefined): string {
  return log === undefined ? main : `${main}|${log}`;
}

/** What SQLite keeps beside a database: its name, and one of these. */
export const LOG_SUFFIXES = ["-wal", "-shm", "-journal"] as const;

/** Names the files SQLite keeps beside a database, and what the database's own name is. */
export function databaseOf(name: string): string | undefined {
  return /^(.+)-(?:wal|shm|journal)$/s.exec(name)?.[1];
}
