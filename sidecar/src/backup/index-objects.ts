import type { Database, Statement } from "bun:sqlite";

import { nextTurn } from "../platform/clock.ts";
import { objectOf, type Entry, type Extent } from "./format/format.ts";
import { MAX_KNOWN_EXTENTS } from "./index-schema.ts";
import type { IndexedEntry } from "./index.ts";
import { UNRESTORED } from "./stamp.ts";

/** About 2 ms. */
const ROWS_PER_TURN = 500;

/** Which content stands where in the store, and which of the store's objects the history has used since when. */
export class IndexObjects implements Disposable {
  readonly #db: Database;
  readonly #insert: Statement;
  readonly #use: Statement;

  constructor(db: Database) {
    this.#db = db;
    this.#insert = db.prepare("INSERT OR IGNORE INTO contents (sha256, extents) VALUES (?, ?)");
    this.#use = db.prepare(
      "INSERT INTO objects (key, position) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET position = excluded.position",
    );
  }

  [Symbol.dispose](): void {
    this.#insert.finalize();
    this.#use.finalize();
  }

  /** Remembers where the content of an entry is. */
  add({ entry, stamp }: IndexedEntry): void {
    if (entry.type !== "file" || entry.size === 0 || stamp === UNRESTORED) return;
    if (entry.extents.length > MAX_KNOWN_EXTENTS) return;
    this.#insert.run(entry.sha256, JSON.stringify(entry.extents));
  }

  locate(sha256: string): Extent[] | undefined {
    const row = this.#db
      .query<{ extents: string }, [string]>("SELECT extents FROM contents WHERE sha256 = ?")
      .get(sha256);
    if (row) return JSON.parse(row.extents) as Extent[];
    const live = this.#db
      .query<{ entry: string }, [string, string]>(
        `SELECT entry FROM entries WHERE sha256 = ? AND extents > ${MAX_KNOWN_EXTENTS} AND stamp <> ? LIMIT 1`,
      )
      .get(sha256, UNRESTORED);
    const entry = live ? (JSON.parse(live.entry) as Entry) : undefined;
    return entry?.type === "file" ? entry.extents : undefined;
  }

  /** Notes what the entries of the commit at `position` point into. */
  use(entries: readonly IndexedEntry[], position: number): void {
    const keys = new Set<string>();
    for (const { entry } of entries) {
      if (entry.type !== "file") continue;
      for (const extent of entry.extents) keys.add(objectOf(extent));
    }
    for (const key of keys) this.#use.run(key, position);
  }

  *usedAfter(position: number): Generator<string> {
    const rows = this.#db.query<{ key: string }, [number]>(
      "SELECT key FROM objects WHERE position > ?",
    );
    for (const { key } of rows.iterate(position)) yield key;
  }

  forgetUses(position: number): void {
    this.#db.run("DELETE FROM objects WHERE position <= ?", [position]);
  }

  relocate(moved: ReadonlyMap<string, readonly Extent[]>): void {
    using all = this.#db.prepare<{ dir: string; name: string; sha256: string }, []>(
      "SELECT dir, name, sha256 FROM entries WHERE sha256 IS NOT NULL",
    );
    using get = this.#db.prepare<{ entry: string }, [string, string]>(
      "SELECT entry FROM entries WHERE dir = ? AND name = ?",
    );
    using set = this.#db.prepare(
      "UPDATE entries SET entry = ?, extents = ? WHERE dir = ? AND name = ?",
    );
    using forget = this.#db.prepare("DELETE FROM contents WHERE sha256 = ?");
    // One look at all of them takes less than one for each: an index of them would cost every commit.
    const affected: { dir: string; name: string; sha256: string }[] = [];
    for (const row of all.iterate()) if (moved.has(row.sha256)) affected.push(row);
    for (const { dir, name, sha256 } of affected) {
      const entry = JSON.parse(get.get(dir, name)?.entry ?? "{}") as Entry;
      const extents = moved.get(sha256) ?? [];
      set.run(JSON.stringify({ ...entry, extents }), extents.length, dir, name);
    }
    for (const [sha256, extents] of moved) {
      forget.run(sha256);
      if (extents.length <= MAX_KNOWN_EXTENTS) this.#insert.run(sha256, JSON.stringify(extents));
    }
  }

  async forgetContents(isDoomed: (key: string) => boolean, signal?: AbortSignal): Promise<void> {
    const page = this.#db.query<{ sha256: string; extents: string }, [string, number]>(
      "SELECT sha256, extents FROM contents WHERE sha256 > ? ORDER BY sha256 LIMIT ?",
    );
    for (let after = ""; ;) {
      signal?.throwIfAborted();
      const rows = page.all(after, ROWS_PER_TURN);
      const doomed = rows.filter(({ extents }) =>
        (JSON.parse(extents) as Extent[]).some((extent) => isDoomed(objectOf(extent))),
      );
      if (doomed.length > 0) {
        this.#db.transaction(() => {
          for (const { sha256 } of doomed)
            this.#db.run("DELETE FROM contents WHERE sha256 = ?", [sha256]);
        })();
      }
      const last = rows.at(-1);
      if (!last) return;
      after = last.sha256;
      await nextTurn();
    }
  }
}
