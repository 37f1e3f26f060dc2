import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";

/** The version of the tables below, in `PRAGMA user_version`. */
const VERSION = 2;

/** The place of content in more pieces than this is known as long as an entry has it: each small change makes another. */
export const MAX_KNOWN_EXTENTS = 8;

/** The index cannot be used. `corrupt`: rebuild it from the store. `newer`: made by a newer sidecar, which must be used again. */
export class IndexError extends Error {
  readonly kind: "corrupt" | "newer";

  constructor(kind: "corrupt" | "newer", message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "IndexError";
    this.kind = kind;
  }
}

// One row per path, found by its folder: a scan compares a folder's listing with the rows of that folder alone.
const TABLES = `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE entries (
    dir TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    stamp TEXT NOT NULL,
    racy INTEGER NOT NULL,
    sqlite INTEGER NOT NULL,
    size INTEGER NOT NULL,
    inode TEXT,
    sha256 TEXT,
    entry TEXT NOT NULL,
    extents INTEGER NOT NULL DEFAULT 0,
    blocks BLOB,
    PRIMARY KEY (dir, name)
  ) WITHOUT ROWID;
  CREATE INDEX entries_inode ON entries (inode) WHERE inode IS NOT NULL;
  CREATE TABLE contents (sha256 TEXT PRIMARY KEY, extents TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE attempts (position INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (position, id)) WITHOUT ROWID;
  CREATE TABLE commits (position INTEGER PRIMARY KEY, header TEXT NOT NULL);
`;

// An object with the last position at which a recorded entry pointed into it; and the contents that `contents` has not.
const OBJECTS = `
  CREATE INDEX entries_in_pieces ON entries (sha256) WHERE extents > ${MAX_KNOWN_EXTENTS};
  CREATE TABLE objects (key TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
  CREATE INDEX objects_position ON objects (position);
`;

// What the commits so far point into was not noted.
const FROM_1 = `
  ALTER TABLE entries ADD COLUMN extents INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE entries ADD COLUMN blocks BLOB;
  INSERT INTO meta (key, value) SELECT 'referencesFrom', json_extract(value, '$.position') FROM meta WHERE key = 'head';
`;

/** Opens the index at `path`, making it where it is missing, unless it is only read. Throws IndexError. */
export function openIndexDatabase(
  path: string,
  options: { readonly readonly?: boolean } = {},
): Database {
  let database: Database | undefined;
  try {
    if (options.readonly) {
      database = new Database(path, { readonly: true, strict: true });
      database.run("PRAGMA busy_timeout = 5000");
    } else {
      database = new Database(path, { create: true, strict: true });
      database.run("PRAGMA journal_mode = WAL");
      // A commit that was acknowledged must be known after a power cut, or our own commit would look like a stranger's.
      database.run("PRAGMA synchronous = FULL");
      database.run("PRAGMA busy_timeout = 5000");
    }
    const row = database.query<{ user_version: number }, []>("PRAGMA user_version").get();
    const version = row?.user_version ?? 0;
    if (version > VERSION) {
      throw new IndexError(
        "newer",
        `Cannot use the index "${path}": it is version ${version}, this sidecar knows ${VERSION}; start the newer image again`,
      );
    }
    if (version < VERSION && options.readonly)
      throw new Error(`Cannot read the index "${path}": it is of an older sidecar; start this one`);
    if (version < VERSION) {
      const open = database;
      open.transaction(() => {
        open.run(version === 0 ? TABLES : FROM_1);
        open.run(OBJECTS);
        open.run(`PRAGMA user_version = ${VERSION}`);
      })();
    }
    return database;
  } catch (error) {
    database?.close();
    if (options.readonly && codeOf(error).startsWith("SQLITE_CANTOPEN") && !existsSync(path))
      throw new IndexError("corrupt", `Cannot read the index "${path}": it is gone`);
    throw asIndexError(error, path);
  }
}

/** True where nothing but rebuilding the index helps. */
export function isDamagedIndex(error: unknown): boolean {
  const known = asIndexError(error, "");
  return known instanceof IndexError && known.kind === "corrupt";
}

/** True where the index has no room on the volume. */
export function isFullIndex(error: unknown): boolean {
  return codeOf(error) === "SQLITE_FULL";
}

/** SQLite's "malformed" and "not a database" as IndexError; what else it says with the name of the file; anything else as it is. */
export function asIndexError(error: unknown, path: string): unknown {
  const { code = "", message = "" } = (error ?? {}) as { code?: string; message?: string };
  if (code.startsWith("SQLITE_CORRUPT") || code.startsWith("SQLITE_NOTADB")) {
    return new IndexError("corrupt", `Cannot read the index "${path}": it is damaged`, {
      cause: error,
    });
  }
  if (!code.startsWith("SQLITE_")) return error;
  const advice = "check that the volume can be written to and has room, or attach another one";
  return new Error(`Cannot use the index "${path}": ${message}; ${advice}`, { cause: error });
}

function codeOf(error: unknown): string {
  return (error as { code?: string } | undefined)?.code ?? "";
}
