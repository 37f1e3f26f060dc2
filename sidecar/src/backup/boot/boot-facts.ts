import type { Clock } from "../../platform/clock.ts";
import { isStoreError, type StoreError } from "../../store/store.ts";
import { holdsFiles, readMarker, type MarkerReading } from "../../volume/marker.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError, type VolumeError } from "../../volume/volume-error.ts";
import { HistoryError, readHead, type StoreReads } from "../history/history.ts";
import type { Index } from "../index.ts";
import { withinTime } from "../within-time.ts";
import { readHeader, rebuildIndex } from "./boot-index.ts";
import type { BootFacts, StoreFacts } from "./decide.ts";

/** A store that has not answered by then counts as unreachable, for now; the next times it is given more. */
const ANSWER_MS = 5_000;
const LONGEST_ANSWER_MS = 120_000;
/** Reading a whole tree takes longer. */
const REBUILD_MS = 600_000;

export interface FactsOptions {
  readonly root: Root;
  readonly user: string;
  readonly machine: string;
  readonly store: StoreReads | undefined;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Opens the index; asked only for volumes that are ready. */
  readonly openIndex: () => Index;
  /** How often the store has not answered before: it may be slow, or far away. */
  readonly failures?: number;
}

/** What is known, and why the store is not: it does not answer, or a full volume has no room to compare it with. */
export interface GatheredFacts {
  readonly facts: BootFacts;
  readonly obstacle: StoreError | VolumeError | undefined;
}

/** Looks at the volume and at the store, once. Throws VolumeError, IndexError, HistoryError, CodecError `newer`. */
export async function gatherFacts(options: FactsOptions): Promise<GatheredFacts> {
  const { root, user, store } = options;
  const marker = readMarker(root);
  const volume = { user, marker, files: holdsFiles(root) };
  if (!store) return { facts: { ...volume, store: { kind: "off" } }, obstacle: undefined };
  try {
    const facts = await storeFacts(store, { ...options, marker });
    return { facts: { ...volume, store: facts }, obstacle: undefined };
  } catch (error) {
    options.signal.throwIfAborted();
    const mayPass =
      isStoreError(error, "unavailable", "throttled", "denied", "missing") ||
      isVolumeError(error, "no_space");
    if (!mayPass) throw error;
    return { facts: { ...volume, store: { kind: "unreachable" } }, obstacle: error };
  }
}

/** Where the volume stands; 0 where that is not known. */
export function positionOf({ facts }: GatheredFacts): number {
  return facts.store.kind === "known" ? facts.store.at : 0;
}

/** True if the marker says that the tree is whole. */
export function isWhole({ facts: { marker } }: GatheredFacts): boolean {
  return marker.kind === "ok" && marker.marker.state === "ready";
}

async function storeFacts(
  store: StoreReads,
  options: FactsOptions & { readonly marker: MarkerReading },
): Promise<StoreFacts> {
  const { marker, user, machine, failures = 0 } = options;
  const limitMs = Math.min(LONGEST_ANSWER_MS, ANSWER_MS * 2 ** failures);
  const answer = <T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> =>
    withinTime(work, { ...options, limitMs });
  const nothing = { kind: "known", at: 0, nextIsOurs: false, treeEquals: undefined } as const;
  const ready =
    marker.kind === "ok" && marker.marker.state === "ready" && marker.marker.user === user;
  if (!ready) {
    const head = await answer((signal) => readHead(store, { signal }));
    return { ...nothing, head, sameHistory: true };
  }
  const index = options.openIndex();
  const noted = marker.marker.position;
  const known = index.head()?.position ?? noted;
  const head = await answer((signal) => readHead(store, { signal, known }));
  const recorded = index.head()?.position ?? 0;
  const isBehind = recorded < noted;
  // In the first life of a machine its marker says 0 until it is stopped in order.
  if (isBehind ? head >= noted : recorded === 0 && head > 0) {
    // Where this machine wrote the newest commit the volume has been there: others would have fenced it.
    const newest = await answer((signal) => readHeader(store, head, { signal }));
    const isOwn = newest?.machine === machine;
    if (isOwn || isBehind) {
      await recoverIndex(index, store, { ...options, head, at: isOwn ? head : noted });
    }
  }
  const own = index.head();
  const at = own?.position ?? noted;
  if (head < at) return { ...nothing, head, at, sameHistory: true };
  // The commit that we stand at, or the one after it, says whether the history is still the same one.
  const after = head > at;
  if (!after && !own) return { ...nothing, head, at, sameHistory: true };
  const found = await answer((signal) => readHeader(store, after ? at + 1 : at, { signal }));
  const said = after ? found?.parent : found?.id;
  return {
    ...nothing,
    head,
    at,
    sameHistory: found === undefined || own === undefined || said === own.id,
    nextIsOurs: after && found !== undefined && index.isAttempt(at + 1, found.id),
  };
}

/** Fills a lost index with the tree at `at`. */
async function recoverIndex(
  index: Index,
  store: StoreReads,
  options: FactsOptions & { readonly head: number; readonly at: number },
): Promise<void> {
  const { head, at } = options;
  try {
    const limit = { ...options, limitMs: REBUILD_MS };
    await withinTime((signal) => rebuildIndex(index, store, { at, signal }), limit);
  } catch (error) {
    // An older tree that is no longer kept cannot be compared with: to an empty index every file is a change.
    if (!(error instanceof HistoryError) || at === head) throw error;
  }
}
