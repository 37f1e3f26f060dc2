import type { Database } from "bun:sqlite";

// From folder to folder, without looking at all that is in them.
const FOLDERS = `
  WITH RECURSIVE folders(dir) AS (
    SELECT min(dir) FROM entries
    UNION ALL
    SELECT (SELECT min(dir) FROM entries WHERE dir > folders.dir) FROM folders WHERE folders.dir IS NOT NULL
  )
  SELECT dir FROM folders WHERE dir <> ''
`;

/** Folders in which the index has entries, but which are no folders in the index themselves: see scan.ts. */
export function* strayFolders(database: Database): Generator<string> {
  const folders = database.query<{ dir: string }, []>(FOLDERS);
  const type = database.query<{ type: string }, [string, string]>(
    "SELECT type FROM entries WHERE dir = ? AND name = ?",
  );
  for (const { dir } of folders.iterate()) {
    const slash = dir.lastIndexOf("/");
    const found = type.get(dir.slice(0, Math.max(0, slash)), dir.slice(slash + 1));
    if (found?.type !== "directory") yield dir;
  }
}
