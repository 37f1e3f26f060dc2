import { readdirSync, type BigIntStats } from "node:fs";

import type { Clock } from "../../platform/clock.ts";
import { TEMP_NAME } from "../../volume/atomic.ts";
import type { Dir } from "../../volume/dir.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError, volumeError } from "../../volume/volume-error.ts";
import type { IndexedChild } from "../index.ts";
import { UNRESTORED, databaseStamp, stampOf } from "../stamp.ts";
import { FolderDatabases } from "./folder-databases.ts";
import type { Ignore } from "./ignore.ts";
import { logOf } from "./sqlite-file.ts";

/** What a scan needs to know of the index: see index.ts. */
interface ScanIndex {
  children(dir: string): readonly IndexedChild[];
  strayFolders(): Iterable<string>;
}

/** Paths that must be read. Both kinds are read before anything is recorded: a scan only looks. */
export interface ScanBatch {
  /** New, or not as the index has it, or recorded too soon after its last change. */
  readonly changed: readonly string[];
  /** In the index and not on the disk (or not backed up any more); a folder stands for all below it. */
  readonly gone: readonly string[];
}

export interface ScanOptions {
  readonly index: ScanIndex;
  readonly ignore: Ignore;
  readonly clock: Clock;
  /** The folder to scan, "" for the whole volume. */
  readonly path?: string;
  /** Asked once per folder. */
  readonly cancelled?: () => boolean;
  readonly onBatch: (batch: ScanBatch) => void;
  /** Called with the entries seen so far, about every 10,000. */
  readonly onProgress?: (entries: number) => void;
}

type ScanOutcome =
  | "complete"
  | "cancelled"
  /** The index has entries and the volume has none: not a tree to commit from. */
  | "emptied"
  /** The root itself cannot be listed. */
  | "unreadable"
  /** The disk reports EIO or EROFS. */
  | "failing";

export interface ScanResult {
  readonly outcome: ScanOutcome;
  readonly durationMs: number;
  /** Entries on the disk that are backed up. */
  readonly entries: number;
  readonly changed: number;
  readonly gone: number;
  /** Folders and entries that could not be looked at; nothing below them counts as gone. At most `MAX_NOTES`. */
  readonly errors: readonly { readonly path: string; readonly message: string }[];
  /** What is there and is never backed up although nobody asked for that. At most `MAX_NOTES`. */
  readonly skipped: readonly { readonly path: string; readonly reason: ScanSkip }[];
  /** Temporary files of writes that were killed, long ago. At most `MAX_NOTES`. */
  readonly leftovers: readonly string[];
  readonly ignored: {
    readonly folders: number;
    readonly files: number;
    /** Sockets, FIFOs and devices. */
    readonly special: number;
  };
}

/** `other_mount`: another file system is mounted there. `bad_name`: not UTF-8, or too deep. */
type ScanSkip = "bad_name" | "other_mount";

/** A write takes seconds; what has its temporary name for an hour belongs to a write that was killed. */
const LEFTOVER_MS = 3_600_000;

const BATCH = 512;
const MAX_NOTES = 1000;
const PROGRESS_EVERY = 10_000;
/** As deep as `Root` walks: what is deeper could not be read. */
const MAX_DEPTH = 255;

/**
 * Compares the disk with the index, folder by folder, each through its own descriptor. Synchronous: a whole volume belongs
 * into the Worker, one small folder can be done anywhere. Never throws for what is on the disk.
 */
export function scan(root: Root, options: ScanOptions): ScanResult {
  return new Scan(root, options).run();
}

class Scan {
  readonly #root: Root;
  readonly #options: ScanOptions;
  #device = 0n;
  #entries = 0;
  #changedCount = 0;
  #goneCount = 0;
  #changed: string[] = [];
  #gone: string[] = [];
  readonly #errors: { path: string; message: string }[] = [];
  readonly #skipped: { path: string; reason: ScanSkip }[] = [];
  readonly #ignored = { folders: 0, files: 0, special: 0 };
  readonly #leftovers: string[] = [];

  constructor(root: Root, options: ScanOptions) {
    this.#root = root;
    this.#options = options;
  }

  run(): ScanResult {
    const start = this.#options.clock.monotonic();
    const outcome = this.#outcome();
    // Of a tree that is not whole nothing may be taken for gone.
    if (outcome === "failing" || outcome === "emptied" || outcome === "unreadable") this.#gone = [];
    this.#flush();
    return {
      outcome,
      durationMs: this.#options.clock.monotonic() - start,
      entries: this.#entries,
      changed: this.#changedCount,
      gone: this.#goneCount,
      errors: this.#errors,
      skipped: this.#skipped,
      ignored: this.#ignored,
      leftovers: this.#leftovers,
    };
  }

  #outcome(): ScanOutcome {
    try {
      const path = this.#options.path ?? "";
      using top = this.#root.dir("");
      this.#device = top.stat().dev;
      if (path === "") return this.#volume(top);
      this.#subtree(path);
      return "complete";
    } catch (error) {
      if (error instanceof Cancelled) return "cancelled";
      if (isVolumeError(error, "failing")) {
        this.#note("", error);
        return "failing";
      }
      this.#note(this.#options.path ?? "", error);
      return "unreadable";
    }
  }

  #volume(top: Dir): ScanOutcome {
    const names = top.names();
    const known = this.#options.index.children("");
    const { ignore } = this.#options;
    // Whether a name at the top is a folder does not matter to the rules that hold there.
    if (known.length > 0 && !names.some((name) => !ignore.matches(name, true))) return "emptied";
    this.#folder(top, names, 0);
    // A file can be recorded before its folder is. When the folder is gone by then, no folder's rows lead to it.
    for (const path of this.#options.index.strayFolders()) {
      if (!isThere(this.#root, path)) this.#forget(path);
    }
    return "complete";
  }

  #subtree(path: string): void {
    if (this.#options.ignore.covers(path, true)) {
      this.#forget(path);
      return;
    }
    try {
      using dir = this.#root.dir(path, { links: "refuse" });
      if (dir.stat().dev !== this.#device) {
        this.#skip(path, "other_mount");
        return;
      }
      this.#isChanged(path);
      this.#folder(dir, dir.names(), path.split("/").length);
    } catch (error) {
      if (isVolumeError(error, "missing")) this.#isGone(path);
      // No folder any more, or a link on the way: whoever reads the path finds out what it is.
      else if (isVolumeError(error, "not_directory", "outside_root")) {
        this.#isChanged(path);
        this.#forget(path);
      } else if (isVolumeError(error) && error.kind !== "failing") this.#note(path, error);
      else throw error;
    }
  }

  #folder(dir: Dir, names: readonly string[], depth: number): void {
    if (this.#options.cancelled?.()) throw new Cancelled();
    const rows = new Map(this.#options.index.children(dir.path).map((row) => [row.name, row]));
    const databases = new FolderDatabases(dir, names, rows);
    for (const name of this.#readable(dir, names)) {
      const row = rows.get(name);
      let stat: BigIntStats;
      try {
        stat = dir.lstat(name);
      } catch (error) {
        if (isVolumeError(error, "missing")) continue;
        if (!isVolumeError(error) || error.kind === "failing") throw error;
        this.#note(dir.pathOf(name), error);
        rows.delete(name);
        continue;
      }
      // Whatever its name, a folder is nothing of SQLite's.
      if (!stat.isDirectory() && databases.owns(name)) continue;
      if (this.#entry(dir, { name, stat, row, depth })) rows.delete(name);
    }
    for (const [name, { stamp }] of rows) {
      if (stamp !== UNRESTORED) this.#isGone(dir.pathOf(name));
    }
  }

  /** Looks at one entry. Returns false where nothing that is backed up is there. */
  #entry(dir: Dir, { name, stat, row, depth }: Found): boolean {
    const path = dir.pathOf(name);
    const isDirectory = stat.isDirectory();
    if (this.#options.ignore.matches(path, isDirectory)) {
      if (isDirectory) this.#ignored.folders += 1;
      else this.#ignored.files += 1;
      if (this.#isLeftover(name, stat)) this.#leftovers.push(path);
      return false;
    }
    if (stat.dev !== this.#device) {
      this.#skip(path, "other_mount");
      return true;
    }
    const main = stampOf(stat);
    if (main === undefined) {
      this.#ignored.special += 1;
      return false;
    }
    this.#count();
    const stamp =
      row?.sqlite === true && row.type === "file"
        ? databaseStamp(main, logOf(dir, name)?.stamp)
        : main;
    if (row === undefined || row.racy || row.stamp !== stamp) this.#isChanged(path);
    if (isDirectory) this.#enter(dir, name, depth);
    else if (row?.type === "directory") this.#forget(path);
    return true;
  }

  #isLeftover(name: string, stat: BigIntStats): boolean {
    if (!TEMP_NAME.test(name) || !stat.isFile() || this.#leftovers.length >= MAX_NOTES)
      return false;
    return this.#options.clock.now() - Number(stat.mtimeMs) > LEFTOVER_MS;
  }

  #enter(parent: Dir, name: string, depth: number): void {
    const path = parent.pathOf(name);
    if (depth >= MAX_DEPTH) {
      this.#skip(path, "bad_name");
      return;
    }
    try {
      using dir = parent.openDir(name);
      this.#folder(dir, dir.names(), depth + 1);
    } catch (error) {
      // Gone, or something else by now: reading it decides.
      if (isVolumeError(error, "missing", "not_directory")) this.#isChanged(path);
      else if (isVolumeError(error) && error.kind !== "failing") this.#note(path, error);
      else throw error;
    }
  }

  /** The names that can be used. One that is not UTF-8 cannot be opened through a string, and says so by U+FFFD. */
  #readable(dir: Dir, names: readonly string[]): readonly string[] {
    if (!names.some((name) => name.includes("\uFFFD"))) return names;
    const good: string[] = [];
    for (const bytes of rawNames(dir)) {
      const name = bytes.toString("utf8");
      if (Buffer.from(name).equals(bytes)) good.push(name);
      else this.#skip(dir.pathOf(name), "bad_name");
    }
    return good;
  }

  /** What was below `path` when it was a folder is gone. */
  #forget(path: string): void {
    for (const { name, stamp } of this.#options.index.children(path)) {
      if (stamp !== UNRESTORED) this.#isGone(`${path}/${name}`);
    }
  }

  #isChanged(path: string): void {
    this.#changedCount += 1;
    if (this.#changed.push(path) >= BATCH) this.#flush();
  }

  #isGone(path: string): void {
    this.#goneCount += 1;
    this.#gone.push(path);
    if (this.#gone.length >= BATCH) this.#flush();
  }

  #flush(): void {
    if (this.#changed.length + this.#gone.length === 0) return;
    this.#options.onBatch({ changed: this.#changed, gone: this.#gone });
    this.#changed = [];
    this.#gone = [];
  }

  #count(): void {
    this.#entries += 1;
    if (this.#entries % PROGRESS_EVERY === 0) this.#options.onProgress?.(this.#entries);
  }

  #note(path: string, error: unknown): void {
    if (this.#errors.length >= MAX_NOTES) return;
    const message = error instanceof Error ? error.message : String(error);
    this.#errors.push({ path, message });
  }

  #skip(path: string, reason: ScanSkip): void {
    if (this.#skipped.length < MAX_NOTES) this.#skipped.push({ path, reason });
  }
}

interface Found {
  readonly name: string;
  readonly stat: BigIntStats;
  readonly row: IndexedChild | undefined;
  readonly depth: number;
}

function isThere(root: Root, path: string): boolean {
  try {
    using _ = root.dir(path, { links: "refuse" });
    return true;
  } catch (error) {
    if (isVolumeError(error, "missing", "not_directory", "outside_root")) return false;
    if (isVolumeError(error) && error.kind !== "failing") return true;
    throw error;
  }
}

function rawNames(dir: Dir): Buffer[] {
  try {
    return readdirSync(dir.self, { encoding: "buffer" });
  } catch (error) {
    throw volumeError(error, "list", dir.path);
  }
}

class Cancelled extends Error {}
