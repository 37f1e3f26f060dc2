import { lstatSync, rmSync } from "node:fs";

import { dropBallast } from "../../volume/ballast.ts";
import type { Root } from "../../volume/root.ts";
import { isFull } from "../../volume/space.ts";
import { VolumeError } from "../../volume/volume-error.ts";
import type { CommitHeader, Entry } from "../format/format.ts";
import {
  HistoryError,
  foldTree,
  readCommit,
  type ReadOptions,
  type StoreReads,
} from "../history/history.ts";
import { IndexError, asIndexError } from "../index-schema.ts";
import { Index, type IndexedEntry } from "../index.ts";

const LOOKS = 3;
/** Of the database and of what SQLite keeps beside it. */
const SUFFIXES = ["", "-wal", "-shm", "-journal"];

/** As `openOrReplaceIndex`. Throws VolumeError `no_space` where a full volume is all that keeps it from being opened. */
export function openIndexOf(root: Root, path: string): Index {
  try {
    return openOrReplaceIndex(path);
  } catch (error) {
    using top = root.dir("");
    if (!isFull(top)) throw error;
    if (dropBallast(root)) return openIndexOf(root, path);
    const message = "Cannot open the index: no space left on the volume";
    throw new VolumeError("no_space", message, { cause: error });
  }
}

/** Opens the index, in place of one that is damaged a new one. Throws IndexError `newer`. */
function openOrReplaceIndex(path: string): Index {
  // SQLite would follow a link that somebody left there before the folder was ours.
  const files = SUFFIXES.map((suffix) => lstatSync(path + suffix, { throwIfNoEntry: false }));
  if (!files[0] || files.some((file) => file?.isFile() === false)) removeIndex(path);
  try {
    return checked(path);
  } catch (error) {
    if (!(error instanceof IndexError) || error.kind !== "corrupt") throw error;
  }
  removeIndex(path);
  return checked(path);
}

/** What an index said of another history must not be believed of this one. */
export function removeIndex(path: string): void {
  for (const suffix of SUFFIXES) {
    rmSync(path + suffix, { force: true, recursive: true });
  }
}

/** Fills the index with the tree at a position of the history. No entry has a stamp: the next scan hashes the disk, and sends only what differs. */
export async function rebuildIndex(
  index: Index,
  store: StoreReads,
  options: ReadOptions & { readonly at: number },
): Promise<void> {
  const tree = options.at === 0 ? undefined : await foldTree(store, options);
  const { head, checkpoint, headers = [] } = tree ?? {};
  const entries = unseen(tree?.entries.values() ?? []);
  await index.fillGradually({ head, checkpoint, headers, entries });
}

/** Makes the commit after the index's head, which is in the store, part of the index. */
export async function recordCommit(
  index: Index,
  store: StoreReads,
  options: ReadOptions & { readonly position: number },
): Promise<void> {
  const { commit } = await readCommit(store, options.position, options);
  const { entries, deleted, ...header } = commit;
  index.record(header, { entries: [...unseen(entries)], deleted });
}

/** What a commit says of itself; undefined where it is not there (any more), or cannot be read however often it is fetched. */
export async function readHeader(
  store: StoreReads,
  position: number,
  options: ReadOptions = {},
): Promise<CommitHeader | undefined> {
  for (let looks = 1; ; looks += 1) {
    try {
      const { commit } = await readCommit(store, position, options);
      const { entries: _, deleted: __, ...header } = commit;
      return header;
    } catch (error) {
      if (!(error instanceof HistoryError)) throw error;
      // Much hangs on it: a commit of ours that is not known as such halts the machine.
      if (error.kind !== "broken" || looks === LOOKS) return undefined;
    }
  }
}

function* unseen(entries: Iterable<Entry>): Generator<IndexedEntry> {
  for (const entry of entries) yield { entry, stamp: "", racy: false };
}

function checked(path: string): Index {
  const index = new Index(path);
  try {
    // Damage shows only where something is read: found by a commit, it would be found again by the one after each boot.
    index.check();
    return index;
  } catch (error) {
    index[Symbol.dispose]();
    throw asIndexError(error, path);
  }
}
