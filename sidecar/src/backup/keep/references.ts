import { nextTurn } from "../../platform/clock.ts";
import { isStoreError } from "../../store/store.ts";
import { isCodecError } from "../format/codec-error.ts";
import { decodeCommit } from "../format/codec.ts";
import { keys, objectOf, type Entry } from "../format/format.ts";
import { decodeManifest } from "../format/manifest.ts";
import { HistoryError, readCommit, type StoreReads } from "../history/history.ts";
import { forEachParallel } from "../history/parallel.ts";
import type { Retention } from "./retention.ts";
import type { Branch } from "./survey.ts";

/** Commits that are read at the same time. */
const READING = 4;
/** About 5 ms. */
const KEYS_PER_TURN = 5_000;
/** Decoded contents do not make Bun collect any sooner. */
const COLLECT_BYTES = 16 * 1024 * 1024;

/** What an index knows of the objects that commits point into: see index.ts. */
export interface KnownReferences {
  /** The references of commits after this position are complete. */
  referencesFrom(): number;
  referencedAfter(position: number): Iterable<string>;
}

export interface References {
  /** Objects that what is kept points into. */
  readonly needed: ReadonlySet<string>;
  /** Objects that branches may point into, if they do not have them themselves. */
  readonly ofBranches: ReadonlySet<string>;
  /** Checkpoints that cannot be read: nothing is known of what they need, and nothing can be built upon them. */
  readonly unreadable: readonly number[];
}

export interface GatherOptions {
  readonly retention: Retention;
  readonly branches: readonly Branch[];
  /** Spares reading the commits of the last week. Read bit by bit: one that nothing is written to meanwhile. */
  readonly index?: KnownReferences | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told after each manifest and commit. */
  readonly onRead?: (() => void) | undefined;
}

/**
 * Gathers what the plan's checkpoints and commits point into, one object at a time: what is held is the names alone.
 * Throws HistoryError where a commit that stays cannot be read, and CodecError `newer`.
 */
export async function gatherReferences(
  store: StoreReads,
  options: GatherOptions,
): Promise<References> {
  const { retention, index, signal, onRead } = options;
  const { floor, head } = retention;
  const needed = new Set<string>();
  const unreadable: number[] = [];
  for (const position of [floor, ...retention.checkpoints]) {
    signal?.throwIfAborted();
    if (!(await readManifest(store, position, { needed, signal }))) unreadable.push(position);
    onRead?.();
  }
  const collector = new Collector();
  const read = async (position: number, mayBeGone: boolean): Promise<void> => {
    try {
      const { commit, members } = await readCommit(store, position, { signal });
      addAll(needed, commit.entries);
      collector.note(members);
      onRead?.();
    } catch (error) {
      // Pinned when it was gone already.
      if (mayBeGone && error instanceof HistoryError && error.kind === "incomplete") return;
      throw error;
    }
  };
  const parallel = { limit: READING, signal };
  for (const { after, to } of retention.commits)
    await forEachParallel(range(after, to), (position) => read(position, true), parallel);
  const known = index ? Math.max(floor, index.referencesFrom()) : head;
  await forEachParallel(range(floor, known), (position) => read(position, false), parallel);
  let taken = 0;
  for (const key of index?.referencedAfter(known) ?? []) {
    needed.add(key);
    taken += 1;
    if (taken % KEYS_PER_TURN === 0) await nextTurn();
  }
  const ofBranches = await gatherBranches(store, options);
  return { needed, ofBranches, unreadable };
}

async function gatherBranches(
  store: StoreReads,
  { branches, signal, onRead }: GatherOptions,
): Promise<Set<string>> {
  const found = new Set<string>();
  for (const { prefix, commits } of branches) {
    for (const position of commits) {
      const key = `${prefix}${keys.commit(position)}`;
      const { commit } = await decodeCommit(await store.get(key, { signal }), { key });
      addAll(found, commit.entries);
      onRead?.();
    }
  }
  return found;
}

/** False where the manifest is damaged, or gone; then what was found so far counts all the same. */
async function readManifest(
  store: StoreReads,
  position: number,
  { needed, signal }: { readonly needed: Set<string>; readonly signal: AbortSignal | undefined },
): Promise<boolean> {
  const key = keys.manifest(position);
  // Damage may have happened on the way.
  for (let tries = 1; tries <= 2; tries += 1) {
    try {
      const { header, entries } = await decodeManifest(await store.get(key, { signal }), { key });
      for await (const entry of entries) addOne(needed, entry);
      return header.position === position;
    } catch (error) {
      signal?.throwIfAborted();
      if (isStoreError(error, "missing")) return false;
      if (!isCodecError(error, "corrupt")) throw error;
    }
  }
  return false;
}

function addAll(found: Set<string>, entries: readonly Entry[]): void {
  for (const entry of entries) addOne(found, entry);
}

function addOne(found: Set<string>, entry: Entry): void {
  if (entry.type !== "file") return;
  for (const extent of entry.extents) found.add(objectOf(extent));
}

function* range(after: number, to: number): Generator<number> {
  for (let position = after + 1; position <= to; position += 1) yield position;
}

class Collector {
  #bytes = 0;

  note(members: ReadonlyMap<string, Uint8Array>): void {
    for (const member of members.values()) this.#bytes += member.byteLength;
    if (this.#bytes <= COLLECT_BYTES) return;
    Bun.gc(true);
    this.#bytes = 0;
  }
}
