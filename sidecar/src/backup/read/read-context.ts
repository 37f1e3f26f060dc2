import { closeSync, statfsSync } from "node:fs";

import type { Clock } from "../../platform/clock.ts";
import { TEMP_PREFIX } from "../../volume/atomic.ts";
import type { Dir, Owner } from "../../volume/dir.ts";
import { OWN_FOLDER } from "../../volume/marker.ts";
import { Root, type Place } from "../../volume/root.ts";
import type { Extent } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import type { Ignore } from "../notice/ignore.ts";
import { DatabaseCopier } from "./sqlite-copy.ts";

/** Where private copies of what never rests are made. Files there have no name once they are open, so nothing is left behind. */
const STAGING = `${OWN_FOLDER}/staging`;

/** A folder is kept open for as long as reading the paths in it, one after the other, may take. */
const FOLDER_MS = 50;
const MAX_FILE_BYTES = 2 * 1024 ** 3;
const ELSEWHERE = "/tmp";
/** Room that a private copy must leave on the volume. */
const RESERVE_BYTES = 64 * 1024 ** 2;
const CHECK_EVERY_MS = 3_600_000;
/** A check takes a millisecond for each MiB, so that the last good copy of a small database really is one. */
const CHECKED_ALWAYS_BYTES = 16 * 1024 ** 2;
/** A database gets at most this share of a core. Source: backup.md, "Read consistently". */
const DATABASE_SHARE = 0.05;
/** The main loop may stand still for 20 ms at most. Source: backup.md, "Numbers to meet". */
const BREATHE_MS = 8;
/** Paths that something is remembered of, at most. */
const MAX_REMEMBERED = 10_000;

/** What reading needs to know of the index: see index.ts. */
export interface ReadIndex {
  get(path: string): IndexedEntry | undefined;
  locate(sha256: string): Extent[] | undefined;
  linkGroup(inode: string): string | undefined;
}

export interface ReadContextOptions {
  /** The volume, with no private folders: what must not be read is what `ignore` says. */
  readonly root: Root;
  readonly index: ReadIndex;
  readonly ignore: Ignore;
  readonly clock: Clock;
  /** Larger files are skipped; 2 GiB by default. */
  readonly maxFileBytes?: number;
  /** Databases are opened as this user, who owns them; as the sidecar's own by default. */
  readonly agent?: Owner | undefined;
  /** Told how long a database shall rest after it was copied, so that a big busy one does not take the machine. */
  readonly onRest?: (path: string, ms: number) => void;
}

/** What lasts from one reading to the next. */
export class ReadContext implements Disposable {
  readonly root: Root;
  readonly index: ReadIndex;
  readonly clock: Clock;
  readonly maxFileBytes: number;
  readonly copier: DatabaseCopier;
  /** st_dev of the volume. */
  readonly device: bigint;
  /** The rules in force; replace it when the rule files have changed. */
  ignore: Ignore;
  readonly #onRest: ((path: string, ms: number) => void) | undefined;
  #breathed = 0;
  #folder: OpenFolder | undefined;
  readonly #restless = new Set<string>();
  readonly #checkDue = new Map<string, number>();
  readonly #links = new Map<string, string>();
  readonly #databases = new Set<string>();

  constructor(options: ReadContextOptions) {
    this.root = options.root;
    this.index = options.index;
    this.ignore = options.ignore;
    this.clock = options.clock;
    this.maxFileBytes = options.maxFileBytes ?? MAX_FILE_BYTES;
    this.#onRest = options.onRest;
    using top = this.root.dir("");
    this.device = top.stat().dev;
    this.copier = new DatabaseCopier({
      root: this.root,
      clock: this.clock,
      agent: options.agent,
      createStaging: (sizeBytes) => this.createStaging(sizeBytes),
      hasRoom: (sizeBytes) => this.hasRoom(sizeBytes),
    });
  }

  /** Ends a copy that is going on. */
  [Symbol.dispose](): void {
    this.copier[Symbol.dispose]();
    this.#folder?.release();
    this.#folder = undefined;
  }

  /**
   * As `Root.place`, no link followed. The folder is the one that was opened for the last path, if that was a moment ago
   * (`reused`) and not `anew`: by now it may have another name, or none.
   */
  placeOf(path: string, options: { readonly anew?: boolean } = {}): ReadPlace {
    const slash = path.lastIndexOf("/");
    const folder = slash < 0 ? "" : path.slice(0, slash);
    const now = this.clock.monotonic();
    const reused = this.#isOpen(folder, now) && !options.anew;
    if (!reused) {
      const next = new OpenFolder(this.root.dir(folder, { links: "refuse" }), now);
      this.#folder?.release();
      this.#folder = next;
    }
    const open = this.#folder;
    if (!open) throw new Error(`Cannot open "${path}": the reader was stopped`);
    open.use();
    const name = path.slice(slash + 1);
    return { dir: open.dir, name, path, reused, [Symbol.dispose]: () => open.release() };
  }

  /** Forgets the hard links seen since the last call: to be called once the index has what was read. */
  startBatch(): void {
    this.#links.clear();
  }

  /** The group that a file of this inode belongs to, which `path` founds if there is none. */
  linkGroup(inode: string, path: string): string {
    const group = this.index.linkGroup(inode) ?? this.#links.get(inode) ?? path;
    if (this.#links.size < MAX_REMEMBERED) this.#links.set(inode, group);
    return group;
  }

  /** Lets everything else run, if reading has gone on for long enough: small files are read without waiting for anything. */
  async breathe(): Promise<void> {
    if (this.clock.monotonic() - this.#breathed < BREATHE_MS) return;
    await new Promise((resolve) => setImmediate(resolve));
    this.#breathed = this.clock.monotonic();
  }

  /** True if `path` changed while it was sent or hashed, so that it needs a private copy. */
  isRestless(path: string): boolean {
    return this.#restless.has(path);
  }

  /** All of these paths. */
  get restless(): readonly string[] {
    return [...this.#restless];
  }

  setRestless(path: string, restless: boolean): void {
    if (!restless) this.#restless.delete(path);
    else if (this.#restless.size < MAX_REMEMBERED) this.#restless.add(path);
  }

  /** True while `path` is read as a database. */
  isDatabase(path: string): boolean {
    return this.#databases.has(path);
  }

  /** The answer of `work`, during which `path` is read as a database. */
  async asDatabase<T>(path: string, work: () => Promise<T>): Promise<T> {
    this.#databases.add(path);
    try {
      return await work();
    } finally {
      this.#databases.delete(path);
    }
  }

  /** True if the database at `path` is to be looked through for damage: a small one each time, any other once an hour. */
  isCheckDue(path: string): boolean {
    const at = this.#checkDue.get(path);
    return at === undefined || this.clock.monotonic() >= at;
  }

  /** Says that a database of this size was checked. Without a size: that it could not be, whatever size it has. */
  setChecked(path: string, sizeBytes = Infinity): void {
    const everyMs = sizeBytes <= CHECKED_ALWAYS_BYTES ? 0 : CHECK_EVERY_MS;
    if (this.#checkDue.size >= MAX_REMEMBERED) this.#checkDue.clear();
    this.#checkDue.set(path, this.clock.monotonic() + everyMs);
  }

  /** Makes every database due for a check: before a checkpoint. */
  checkAll(): void {
    this.#checkDue.clear();
  }

  /** Says that copying the database at `path` took this long. */
  restAfter(path: string, tookMs: number): void {
    this.#onRest?.(path, tookMs / DATABASE_SHARE);
  }

  /** True if the volume has room for a private copy of this size. */
  hasRoom(sizeBytes: number): boolean {
    return freeBytes(this.root.path) >= sizeBytes + RESERVE_BYTES;
  }

  /**
   * A new file without a name, open for reading and writing; the caller closes it. It is on the volume, or, where that
   * has no room for `sizeBytes`, on the machine's own disk: a full volume is when a backup is needed.
   */
  createStaging(sizeBytes: number): number {
    const isElsewhere = !this.hasRoom(sizeBytes) && freeBytes(ELSEWHERE) >= sizeBytes;
    using folder = isElsewhere ? new Root(ELSEWHERE) : undefined;
    using dir =
      folder?.dir("") ?? this.root.dir(STAGING, { links: "refuse", create: { mode: 0o700 } });
    const name = `${TEMP_PREFIX}${crypto.randomUUID()}`;
    const fd = dir.create(name, 0o600);
    try {
      dir.unlink(name);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  }

  #isOpen(folder: string, now: number): boolean {
    const open = this.#folder;
    return open !== undefined && open.dir.path === folder && now - open.since <= FOLDER_MS;
  }
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Where a path is read. */
export interface ReadPlace extends Place {
  readonly reused: boolean;
}

/** A folder that several readings use; closed when the last has released it. */
class OpenFolder {
  readonly dir: Dir;
  readonly since: number;
  #users = 1;

  constructor(dir: Dir, since: number) {
    this.dir = dir;
    this.since = since;
  }

  use(): void {
    this.#users += 1;
  }

  release(): void {
    this.#users -= 1;
    if (this.#users === 0) this.dir[Symbol.dispose]();
  }
}
