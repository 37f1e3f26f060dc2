import type { Database, Statement } from "bun:sqlite";

import { nextTurn } from "../platform/clock.ts";
import type { CommitHeader, Entry, Extent } from "./format/format.ts";
import { IndexHistory } from "./index-history.ts";
import { IndexObjects } from "./index-objects.ts";
import { IndexError, openIndexDatabase } from "./index-schema.ts";
import { strayFolders } from "./notice/stray-folders.ts";
import { UNRESTORED } from "./stamp.ts";

/** The last commit that is known to be in the store and in the index. */
export interface Head {
  readonly position: number;
  readonly id: string;
  /** Milliseconds since the epoch, as the commit says. */
  readonly time: number;
}

/** An entry as it stands in the store, and how the disk looked when it was read. */
export interface IndexedEntry {
  readonly entry: Entry;
  /** From `stampOf`/`databaseStamp`; "" where the disk has not been looked at, which no stamp equals. */
  readonly stamp: string;
  /** Read so soon after its last change that a later one could hide behind the same stamp: read it again at the next scan. */
  readonly racy: boolean;
  /** "dev:ino" of a file with several names. */
  readonly inode?: string | undefined;
  /**
   * Hashes of the content's blocks, of larger files (see delta.ts): what changes is found by them. Only `get` gives them.
   * They stay as long as the content does, also where an item without them takes its place.
   */
  readonly blocks?: Uint8Array | undefined;
}

/** What a scan needs to know of one name in a folder. */
export interface IndexedChild {
  readonly name: string;
  readonly type: Entry["type"];
  readonly stamp: string;
  readonly racy: boolean;
  readonly sqlite: boolean;
}

/** What one commit changes. */
export interface RecordedChanges {
  readonly entries: readonly IndexedEntry[];
  /** Paths that are gone, with all that was below them. Applied before `entries`. */
  readonly deleted: readonly string[];
}

/** A whole tree at a position of the history. `headers` are the commits after the checkpoint. */
export interface KnownTree {
  readonly head: Head | undefined;
  readonly checkpoint: { readonly position: number; readonly time: number } | undefined;
  readonly headers: readonly CommitHeader[];
  readonly entries: Iterable<IndexedEntry>;
}

/** About 2 ms. */
const ENTRIES_PER_TURN = 100;

interface Row {
  readonly dir: string;
  readonly name: string;
  readonly stamp: string;
  readonly racy: number;
  readonly inode: string | null;
  readonly entry: string;
  readonly blocks?: Uint8Array | null;
}

/**
 * What the store holds of this volume, kept on the volume: the truth that a scan compares the disk with. It can always
 * be rebuilt from the store, so it is written by nobody but the one commit loop, after the store acknowledged.
 */
export class Index implements Disposable {
  readonly #db: Database;
  readonly #insert: Statement;
  readonly #objects: IndexObjects;
  readonly #history: IndexHistory;
  readonly #removeOne: Statement;
  readonly #removeBelow: Statement;

  /** Opens or makes the index; with `readonly` it must be there, and only what reads may be called. Throws IndexError (`corrupt`, `newer`). */
  constructor(path: string, options: { readonly readonly?: boolean } = {}) {
    this.#db = openIndexDatabase(path, options);
    this.#insert = this.#db.prepare(
      `INSERT INTO entries (dir, name, type, stamp, racy, sqlite, size, inode, sha256, entry, extents, blocks) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)
       ON CONFLICT (dir, name) DO UPDATE SET type = excluded.type, stamp = excluded.stamp, racy = excluded.racy,
       sqlite = excluded.sqlite, size = excluded.size, inode = excluded.inode, sha256 = excluded.sha256, entry = excluded.entry, extents = excluded.extents,
       blocks = CASE WHEN excluded.blocks IS NULL AND excluded.sha256 = entries.sha256 THEN entries.blocks ELSE excluded.blocks END`,
    );
    this.#objects = new IndexObjects(this.#db);
    this.#history = new IndexHistory(this.#db);
    this.#removeOne = this.#db.prepare("DELETE FROM entries WHERE dir = ? AND name = ?");
    this.#removeBelow = this.#db.prepare(
      "DELETE FROM entries WHERE dir = ? OR (dir >= ? AND dir < ?)",
    );
  }

  [Symbol.dispose](): void {
    // One that is left would keep the file open behind a closed index.
    this.#objects[Symbol.dispose]();
    for (const statement of [this.#insert, this.#removeOne, this.#removeBelow])
      statement.finalize();
    this.#db.close();
  }

  /** Reads all of it, 40 ms for 100,000 entries. Throws IndexError `corrupt` where that is not possible. */
  check(): void {
    const row = this.#db.query<{ quick_check: string }, []>("PRAGMA quick_check(1)").get();
    if (row?.quick_check === "ok") return;
    throw new IndexError("corrupt", `Cannot use the index: ${row?.quick_check ?? "no answer"}`);
  }

  /** From here on this index (opened `readonly`) shows what it holds now, whatever is recorded meanwhile. */
  freeze(): this {
    this.#db.run("BEGIN");
    // The moment is that of the first look, not of BEGIN.
    this.head();
    return this;
  }

  /** Where the history stands; undefined before the first commit. */
  head(): Head | undefined {
    return this.#history.head();
  }

  get(path: string): IndexedEntry | undefined {
    const { dir, name } = split(path);
    const row = this.#db
      .query<Row, [string, string]>(
        "SELECT dir, name, stamp, racy, inode, entry, blocks FROM entries WHERE dir = ? AND name = ?",
      )
      .get(dir, name);
    return row ? indexed(row) : undefined;
  }

  /** The rows of one folder ("" is the root), ordered by name. */
  children(dir: string): IndexedChild[] {
    return this.#db
      .query<
        { name: string; type: Entry["type"]; stamp: string; racy: number; sqlite: number },
        [string]
      >("SELECT name, type, stamp, racy, sqlite FROM entries WHERE dir = ? ORDER BY name")
      .all(dir)
      .map((row) => ({ ...row, racy: row.racy === 1, sqlite: row.sqlite === 1 }));
  }

  /** Folders that have entries in them and are no folders in the index themselves, ordered. */
  strayFolders(): Generator<string> {
    return strayFolders(this.#db);
  }

  /** Every entry, ordered by folder, then name, without its blocks. */
  *all(): Generator<IndexedEntry> {
    const rows = this.#db.query<Row, []>(
      "SELECT dir, name, stamp, racy, inode, entry FROM entries ORDER BY dir, name",
    );
    for (const row of rows.iterate()) yield indexed(row);
  }

  /** Paths that a restore could not bring back and that nothing has taken the place of since. */
  unrestored(): string[] {
    return this.#db
      .query<{ dir: string; name: string }, [string]>(
        "SELECT dir, name FROM entries WHERE stamp = ? ORDER BY dir, name",
      )
      .all(UNRESTORED)
      .map(({ dir, name }) => (dir === "" ? name : `${dir}/${name}`));
  }

  totals(): { readonly entries: number; readonly bytes: number } {
    const row = this.#db
      .query<{ entries: number; bytes: number }, []>(
        "SELECT COUNT(*) AS entries, COALESCE(SUM(size), 0) AS bytes FROM entries",
      )
      .get();
    return row ?? { entries: 0, bytes: 0 };
  }

  /** How many entries lie at or below `path`. */
  countBelow(path: string): number {
    const row = this.#db
      .query<{ n: number }, [string, string, string]>(
        "SELECT COUNT(*) AS n FROM entries WHERE dir = ? OR (dir >= ? AND dir < ?)",
      )
      .get(path, ...below(path));
    return (row?.n ?? 0) + (this.get(path) ? 1 : 0);
  }

  /** Where the store has this content; undefined if it does not, or not for sure. */
  locate(sha256: string): Extent[] | undefined {
    return this.#objects.locate(sha256);
  }

  /** What commits after this position point into is known: see `referencedAfter`. */
  referencesFrom(): number {
    return Number(this.#history.value("referencesFrom") ?? 0);
  }

  /** Keys of the objects that entries of commits after `position` point into. Nothing may be recorded before it is through. */
  referencedAfter(position: number): Generator<string> {
    return this.#objects.usedAfter(position);
  }

  /** Forgets what only commits up to `position` point into: `referencesFrom` is that position then, if it is not higher already. */
  forgetReferences(position: number): void {
    this.#db.transaction(() => {
      this.#objects.forgetUses(position);
      this.#history.setValue("referencesFrom", Math.max(position, this.referencesFrom()));
    })();
  }

  /** From now on each of these contents, by its sha256, stands elsewhere. */
  relocate(moved: ReadonlyMap<string, readonly Extent[]>): void {
    this.#db.transaction(() => this.#objects.relocate(moved))();
  }

  /** Forgets where content stands that lies in doomed objects. What entries point into stays; a commit that is under way may still rely on what it forgets. */
  async forgetContents(isDoomed: (key: string) => boolean, signal?: AbortSignal): Promise<void> {
    await this.#objects.forgetContents(isDoomed, signal);
  }

  /** What was kept under this name by `setNote`; undefined where nothing was, or the index was filled anew. */
  note(name: string): unknown {
    return this.#history.value(`note:${name}`);
  }

  setNote(name: string, value: unknown): void {
    this.#history.setValue(`note:${name}`, value);
  }

  /** The name of the group that the files of this inode form (see `hardlink` in format.ts), undefined if none is known. */
  linkGroup(inode: string): string | undefined {
    const row = this.#db
      .query<Row, [string]>(
        "SELECT dir, name, stamp, racy, inode, entry FROM entries WHERE inode = ? ORDER BY dir, name LIMIT 1",
      )
      .get(inode);
    if (!row) return undefined;
    const { entry } = indexed(row);
    return entry.type === "file" ? (entry.hardlink ?? entry.path) : undefined;
  }

  /** Remembers an id before it is put under `position`: a put that seemed to fail may still land. */
  addAttempt(position: number, id: string): void {
    this.#history.addAttempt(position, id);
  }

  /** True if a commit with this id at this position is ours. */
  isAttempt(position: number, id: string): boolean {
    return this.#history.isAttempt(position, id);
  }

  /** Makes a commit that is in the store part of the index, in one transaction. */
  record(header: CommitHeader, changes: RecordedChanges): void {
    this.#db.transaction(() => {
      for (const path of changes.deleted) this.#remove(path);
      for (const item of changes.entries) this.#put(item);
      this.#objects.use(changes.entries, header.position);
      this.#history.record(header);
    })();
  }

  /** How many commits were recorded on the UTC day of `time`. Remembers one day. */
  commitsOn(time: number): number {
    return this.#history.commitsOn(time);
  }

  /** Takes over stamps of entries whose content turned out to be the same. */
  restamp(items: readonly IndexedEntry[]): void {
    this.#db.transaction(() => {
      for (const item of items) this.#put(item);
    })();
  }

  /** Headers of the commits after `position`, oldest first. */
  headersAfter(position: number): CommitHeader[] {
    return this.#history.headersAfter(position);
  }

  /** The newest checkpoint that is known to be whole. */
  checkpoint(): { readonly position: number; readonly time: number } | undefined {
    return this.#history.checkpoint();
  }

  /** Remembers a verified checkpoint; the headers up to it are in its manifest. */
  setCheckpoint(checkpoint: { readonly position: number; readonly time: number }): void {
    this.#db.transaction(() => this.#history.setCheckpoint(checkpoint))();
  }

  /** Replaces everything by a known tree: after a restore, and when the index is rebuilt. */
  fill(tree: KnownTree): void {
    this.#db.transaction(() => {
      this.#begin(tree);
      for (const item of tree.entries) this.#put(item);
    })();
  }

  /** As `fill`, with a turn for others now and then. Until it resolves nobody may use this index. */
  async fillGradually(tree: KnownTree): Promise<void> {
    this.#db.run("BEGIN IMMEDIATE");
    try {
      this.#begin(tree);
      let done = 0;
      for (const item of tree.entries) {
        this.#put(item);
        done += 1;
        if (done % ENTRIES_PER_TURN === 0) await nextTurn();
      }
      this.#db.run("COMMIT");
    } catch (error) {
      this.#db.run("ROLLBACK");
      throw error;
    }
  }

  /** Empties every table, and puts in what is not an entry. */
  #begin(tree: KnownTree): void {
    for (const table of ["meta", "entries", "contents", "objects", "attempts", "commits"])
      this.#db.run(`DELETE FROM ${table}`);
    for (const header of tree.headers) this.#history.addHeader(header);
    if (tree.head) {
      this.#history.setHead(tree.head);
      this.#history.setValue("referencesFrom", tree.head.position);
    }
    if (tree.checkpoint) this.#history.setCheckpoint(tree.checkpoint);
  }

  #put(item: IndexedEntry): void {
    const { entry, stamp, racy, inode, blocks } = item;
    const { dir, name } = split(entry.path);
    const file = entry.type === "file" ? entry : undefined;
    this.#insert.run(
      dir,
      name,
      entry.type,
      stamp,
      racy ? 1 : 0,
      file?.sqlite ? 1 : 0,
      file?.size ?? 0,
      inode ?? null,
      file?.sha256 ?? null,
      JSON.stringify(entry),
      file?.extents.length ?? 0,
      blocks ?? null,
    );
    this.#objects.add(item);
  }

  #remove(path: string): void {
    const { dir, name } = split(path);
    this.#removeOne.run(dir, name);
    this.#removeBelow.run(path, ...below(path));
  }
}

/** The bounds of all folders below `path`, by the order of bytes: "0" follows "/". */
function below(path: string): [string, string] {
  return [`${path}/`, `${path}0`];
}

function split(path: string): { dir: string; name: string } {
  const slash = path.lastIndexOf("/");
  return slash < 0
    ? { dir: "", name: path }
    : { dir: path.slice(0, slash), name: path.slice(slash + 1) };
}

function indexed(row: Row): IndexedEntry {
  return {
    entry: JSON.parse(row.entry) as Entry,
    stamp: row.stamp,
    racy: row.racy === 1,
    ...(row.inode === null ? {} : { inode: row.inode }),
    ...(row.blocks ? { blocks: row.blocks } : {}),
  };
}
