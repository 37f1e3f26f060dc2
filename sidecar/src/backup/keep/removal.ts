import type { Clock } from "../../platform/clock.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { keys } from "../format/format.ts";
import type { StoreReads } from "../history/history.ts";
import { withinTime } from "../within-time.ts";
import { findDoomed, KINDS, type FindOptions, type RemovalReport } from "./doomed.ts";
import type { KnownReferences } from "./references.ts";

/** Commits wait while so many objects are deleted. */
const BATCH = 250;
const DELETE_MS = 30_000;
/** Pauses between tries of one batch. */
const AGAIN_MS = [1_000, 4_000];

/** What removal needs of the machine's index: see index.ts. */
export interface RemovalIndex extends KnownReferences {
  head(): { readonly position: number } | undefined;
  forgetContents(isDoomed: (key: string) => boolean, signal?: AbortSignal): Promise<void>;
  forgetReferences(position: number): void;
}

/** Those who write the history: see Replicator. */
export interface Writer {
  prove(signal: AbortSignal): Promise<boolean>;
  between<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T>;
}

export interface RemovalOptions {
  readonly store: Store;
  /** The same store, for what is read; each answer within a time. */
  readonly reads: StoreReads;
  readonly index: RemovalIndex;
  /** The index as of one moment. Disposed of by removal. */
  readonly snapshot: () => KnownReferences & RemovalIndexHead & Disposable;
  readonly writer: Writer;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress?: FindOptions["onProgress"];
}

type RemovalIndexHead = Pick<RemovalIndex, "head">;

export interface RemovalResult extends RemovalReport {
  /** What went, expired pins not counted. */
  readonly removed: number;
  /** Why it went no further: the history is not provably ours, or somebody else wrote to it meanwhile. */
  readonly stopped?: "not_ours" | "overtaken";
}

/** What would go from a store, from anywhere: nothing is written. */
export async function dryRun(
  store: StoreReads,
  options: Omit<FindOptions, "index" | "head"> = {},
): Promise<RemovalReport> {
  return (await findDoomed(store, options)).report;
}

/**
 * Removes what nothing kept needs. Ended at any point, what stays is whole, and the next run goes on. The order makes it so:
 * what is found doomed is first forgotten by the index, so that no new commit builds on it; from then on each batch is
 * deleted between two commits, minus what commits have come to point into meanwhile, and only while nobody else writes.
 * Throws the store's errors, and where it cannot be told what may go.
 */
export async function removeDoomed(options: RemovalOptions): Promise<RemovalResult> {
  const { index, writer, signal, onProgress } = options;
  const { doomed, head } = await find(options);
  const { report } = doomed;
  const batches = [
    ...KINDS.flatMap((kind) => chunks(doomed.keys[kind])),
    ...chunks(report.expiredPins),
  ];
  if (batches.length === 0) return { ...report, removed: 0 };
  if (!(await writer.prove(signal))) return { ...report, removed: 0, stopped: "not_ours" };
  await index.forgetContents(doomed.isDoomed, signal);
  let removed = 0;
  for (const batch of batches) {
    signal.throwIfAborted();
    const gone = await writer.between(
      () => removeBatch(batch, { ...options, since: head }),
      signal,
    );
    if (gone === "overtaken") return { ...report, removed, stopped: "overtaken" };
    removed += gone;
    onProgress?.(removed);
  }
  // Never asked for again, unless the checkpoint there is lost: then its commits are read.
  if (report.keptFrom !== undefined) index.forgetReferences(report.keptFrom);
  return { ...report, removed };
}

async function find(options: RemovalOptions): Promise<{
  readonly doomed: Awaited<ReturnType<typeof findDoomed>>;
  readonly head: number;
}> {
  const { reads, signal, onProgress } = options;
  using snapshot = options.snapshot();
  const head = snapshot.head()?.position ?? 0;
  if (head === 0) throw new Error("Cannot remove anything: there is no commit yet");
  const doomed = await findDoomed(reads, { head, index: snapshot, signal, onProgress });
  return { doomed, head };
}

/** Called while no commit is under way. Resolves with how many went. */
async function removeBatch(
  batch: readonly string[],
  { store, index, clock, signal, since }: RemovalOptions & { readonly since: number },
): Promise<number | "overtaken"> {
  const needed = new Set(index.referencedAfter(since));
  const doomed = batch.filter((key) => !needed.has(key));
  if (doomed.length === 0) return 0;
  const limits = { clock, signal, limitMs: DELETE_MS };
  for (let tries = 0; ; tries += 1) {
    const last = keys.commit(index.head()?.position ?? 0);
    try {
      const { objects } = await withinTime(
        (signal) => store.list(keys.commits, { after: last, limit: 1, signal }),
        limits,
      );
      if (objects.length > 0) return "overtaken";
      await withinTime((signal) => store.delete(doomed, { signal }), limits);
      return doomed.filter((key) => !key.startsWith(keys.pins)).length;
    } catch (error) {
      // A delete whose answer was lost may still come to pass: it is made sure of before commits go on.
      const pauseMs = AGAIN_MS[tries];
      if (pauseMs === undefined || !isStoreError(error, "unavailable", "throttled")) throw error;
      await clock.sleep(pauseMs, signal);
    }
  }
}

function chunks(all: readonly string[]): string[][] {
  const found: string[][] = [];
  for (let at = 0; at < all.length; at += BATCH) found.push(all.slice(at, at + BATCH));
  return found;
}
