import { nextTurn } from "../../platform/clock.ts";
import { objectOf, type Extent, type FileEntry } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import { UNRESTORED } from "../stamp.ts";

/**
 * An object of which the tree needs less than this is worth leaving: it is small, or mostly of the past. What is needed of
 * it is then moved together with that of others. The rest of the objects are dense and stay.
 */
const SPARSE_BYTES = 512 * 1024;
/** Fewer sparse objects than this cost a restore little. */
const MAX_SPARSE = 64;
/** What one checkpoint moves at most; the next one goes on. */
const MAX_MOVED_BYTES = 64 * 1024 * 1024;
const MAX_MOVED_FILES = 20_000;
/** About 2 ms. */
const ENTRIES_PER_TURN = 100;

/** A content of which some stands in sparse objects. */
export interface Movable {
  readonly entry: FileEntry;
  /** The extents in order, those that move and stand next to each other as one group. */
  readonly groups: readonly Group[];
}

export interface Group {
  readonly extents: readonly Extent[];
  readonly moves: boolean;
}

/**
 * Decides what of a tree is put together anew: contents in sparse commits and parts, where these are many. `entries` gives
 * all entries of one moment, each time it is called. In the order of the objects that hold them, so that each is read once.
 */
export async function planMoves(entries: () => Iterable<IndexedEntry>): Promise<Movable[]> {
  const sparse = await sparseObjects(entries());
  if (sparse.size === 0) return [];
  const found = new Map<string, Movable>();
  for await (const { entry } of gradually(entries())) {
    if (found.has(entry.sha256)) continue;
    const groups = groupsOf(entry.extents, sparse);
    if (groups.some(({ moves }) => moves)) found.set(entry.sha256, { entry, groups });
    if (found.size >= MAX_MOVED_FILES) break;
  }
  const ordered = [...found.values()].map((movable) => ({ movable, first: firstMoved(movable) }));
  ordered.sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  return ordered.map(({ movable }) => movable);
}

/** The keys of commits and parts that the tree needs little of; none where they are few. */
async function sparseObjects(entries: Iterable<IndexedEntry>): Promise<ReadonlySet<string>> {
  const needed = new Map<string, number>();
  const seen = new Set<string>();
  for await (const { entry } of gradually(entries)) {
    // The same content under several paths stands in one place.
    if (seen.has(entry.sha256)) continue;
    seen.add(entry.sha256);
    for (const extent of entry.extents) {
      if (typeof extent.blob === "string") continue;
      const key = objectOf(extent);
      needed.set(key, (needed.get(key) ?? 0) + extent.length);
    }
  }
  const sparse = [...needed]
    .filter(([, bytes]) => bytes < SPARSE_BYTES)
    .sort(([, a], [, b]) => a - b);
  if (sparse.length <= MAX_SPARSE) return new Set();
  const chosen = new Set<string>();
  let bytes = 0;
  for (const [key, more] of sparse) {
    bytes += more;
    if (bytes > MAX_MOVED_BYTES) break;
    chosen.add(key);
  }
  return chosen;
}

function groupsOf(extents: readonly Extent[], sparse: ReadonlySet<string>): Group[] {
  const groups: { extents: Extent[]; moves: boolean }[] = [];
  for (const extent of extents) {
    const moves = sparse.has(objectOf(extent));
    const last = groups.at(-1);
    if (last?.moves === moves) last.extents.push(extent);
    else groups.push({ extents: [extent], moves });
  }
  return groups;
}

function firstMoved({ groups }: Movable): string {
  const extent = groups.find(({ moves }) => moves)?.extents[0];
  return extent ? objectOf(extent) : "";
}

/** The files with content that the store is known to have. */
async function* gradually(
  entries: Iterable<IndexedEntry>,
): AsyncGenerator<{ readonly entry: FileEntry }> {
  let done = 0;
  for (const { entry, stamp } of entries) {
    done += 1;
    if (done % ENTRIES_PER_TURN === 0) await nextTurn();
    if (entry.type === "file" && entry.extents.length > 0 && stamp !== UNRESTORED) yield { entry };
  }
}
