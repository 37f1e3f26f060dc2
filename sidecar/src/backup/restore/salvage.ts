import type { FileEntry } from "../format/format.ts";
import {
  HistoryError,
  listPositions,
  readCheckpoint,
  readCommit,
  type ReadOptions,
  type StoreReads,
} from "../history/history.ts";

/** An earlier content of a path. */
export interface OlderVersion {
  /** The position that it is known from. */
  readonly position: number;
  readonly entry: FileEntry;
}

/** How far back the search goes. */
const COMMITS = 1_000;
const CHECKPOINTS = 5;
const WINDOW = 8;

/**
 * What the history says of these files before `position`, newest first, other contents than those given. Commits and
 * checkpoints that cannot be read are passed over.
 */
export async function* olderVersions(
  store: StoreReads,
  files: readonly FileEntry[],
  options: ReadOptions & { readonly position: number },
): AsyncGenerator<OlderVersion, void, undefined> {
  const { position: from, signal } = options;
  const wanted = new Map(files.map(({ path, sha256 }) => [path, sha256]));
  const matches = (path: string, sha256: string): boolean =>
    wanted.has(path) && wanted.get(path) !== sha256;
  const { commits, checkpoints } = await listPositions(store, { atOrBefore: from, signal });

  const recent = commits.slice(0, COMMITS);
  for (let at = 0; at < recent.length; at += WINDOW) {
    const window = recent.slice(at, at + WINDOW);
    const found = await Promise.all(
      window.map((position) => orUndefined(readCommit(store, position, { signal }))),
    );
    for (const decoded of found) {
      for (const entry of decoded?.commit.entries ?? []) {
        if (decoded && entry.type === "file" && matches(entry.path, entry.sha256)) {
          yield { position: decoded.commit.position, entry };
        }
      }
    }
  }
  for (const position of checkpoints.slice(0, CHECKPOINTS)) {
    const checkpoint = await orUndefined(readCheckpoint(store, position, { signal }));
    for (const path of wanted.keys()) {
      const entry = checkpoint?.tree.entries.get(path);
      if (entry?.type === "file" && matches(path, entry.sha256)) yield { position, entry };
    }
  }
}

async function orUndefined<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof HistoryError) return undefined;
    throw error;
  }
}
