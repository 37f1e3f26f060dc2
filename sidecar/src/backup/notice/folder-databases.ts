import type { Dir } from "../../volume/dir.ts";
import type { IndexedChild } from "../index.ts";
import { databaseOf } from "../stamp.ts";
import { hasSqliteHeader } from "./sqlite-file.ts";

/** Which names in a folder belong to a database beside them, and are never entries of their own. */
export class FolderDatabases {
  readonly #dir: Dir;
  readonly #rows: ReadonlyMap<string, IndexedChild>;
  readonly #names: ReadonlySet<string>;
  readonly #known = new Map<string, boolean>();

  constructor(dir: Dir, names: readonly string[], rows: ReadonlyMap<string, IndexedChild>) {
    this.#dir = dir;
    // Copied, because the rows that were found are taken out of the map on the way.
    const owned = names.some((name) => databaseOf(name) !== undefined);
    this.#rows = owned ? new Map(rows) : rows;
    this.#names = new Set(owned ? names : []);
  }

  owns(name: string): boolean {
    const main = this.#names.size === 0 ? undefined : databaseOf(name);
    if (main === undefined || !this.#names.has(main)) return false;
    let is = this.#known.get(main);
    if (is === undefined) {
      const row = this.#rows.get(main);
      // What SQLite itself refused to read is recorded as a plain file, whatever its header says.
      is = row?.type === "file" ? row.sqlite : hasSqliteHeader(this.#dir, main);
      this.#known.set(main, is);
    }
    return is;
  }
}
