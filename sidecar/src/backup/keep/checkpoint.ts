import { nextTurn, type Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { FORMAT, keys, type CheckpointHeader, type Entry, type Extent } from "../format/format.ts";
import { decodeManifest, encodeManifest } from "../format/manifest.ts";
import type { Head, Index } from "../index.ts";
import { putTimeoutMs } from "../patience.ts";
import { UNRESTORED } from "../stamp.ts";
import { withinTime } from "../within-time.ts";
import { repack, type Repacked } from "./repack.ts";

/** Contents that are given their new place at a time: about 5 ms. */
const RELOCATED_PER_TURN = 100;

export interface CheckpointOptions {
  readonly store: Store;
  readonly index: Pick<Index, "setCheckpoint" | "relocate">;
  /** Opens the index at one moment, for reading on while commits are recorded. */
  readonly snapshot: () => Index;
  readonly clock: Clock;
  readonly log: Logger;
  readonly user: string;
  readonly machine: string;
}

type Moved = ReadonlyMap<string, readonly Extent[]>;

/**
 * Writes the tree of the index as a checkpoint, with what is scattered put together in its parts, reads it back, and
 * remembers it. Throws where any of that fails; the history is whole all the same.
 */
export async function writeCheckpoint(
  options: CheckpointOptions,
  signal: AbortSignal,
): Promise<CheckpointHeader> {
  const { store, index } = options;
  using snapshot = options.snapshot();
  const head = snapshot.head();
  if (!head) throw new Error("Cannot write a checkpoint: there is no commit yet");
  const header = headerOf(snapshot, { head, ...options });
  const key = keys.manifest(header.position);
  const quick = { clock: options.clock, signal, limitMs: putTimeoutMs(0) };
  // One that was cut off before it was remembered: what it has moved is not known here, and is moved again another time.
  const isThere = await withinTime((signal) => store.head(key, { signal }), quick);
  const { moved } = isThere
    ? NOTHING
    : await repackUnlessItFails(snapshot, { header, signal, ...options });
  if (!isThere)
    await put(key, await encodeManifest(header, entriesOf(snapshot, moved)), {
      ...options,
      signal,
    });
  const limits = {
    ...quick,
    limitMs: putTimeoutMs(isThere?.sizeBytes ?? header.entryCount * 1_000),
  };
  const bytes = await withinTime((signal) => store.get(key, { signal }), limits);
  const isOurs = await verify(bytes, { key, header, moved });
  signal.throwIfAborted();
  if (isOurs) await relocate(index, moved);
  index.setCheckpoint({ position: header.position, time: header.time });
  return header;
}

const NOTHING: Repacked = { moved: new Map(), parts: 0, bytes: 0, damaged: [] };

/** A tree that cannot be put together better is written down as it is. */
async function repackUnlessItFails(
  snapshot: Index,
  options: CheckpointOptions & { readonly header: CheckpointHeader; readonly signal: AbortSignal },
): Promise<Repacked> {
  const { header, log, signal } = options;
  const { position } = header;
  try {
    const repacked = await repack({ ...options, position, entries: () => snapshot.all() });
    const { parts, bytes, moved, damaged } = repacked;
    if (parts > 0)
      log.info(
        { position, parts, bytes, contents: moved.size },
        "Scattered contents were put together",
      );
    if (damaged.length > 0)
      log.error({ position, files: damaged.slice(0, 20) }, "Contents in the store are damaged");
    return repacked;
  } catch (error) {
    signal.throwIfAborted();
    log.warn(
      { position, error },
      "Cannot put scattered contents together; they stay where they are",
    );
    return NOTHING;
  }
}

async function put(
  key: string,
  bytes: Uint8Array,
  { store, clock, signal }: CheckpointOptions & { readonly signal: AbortSignal },
): Promise<void> {
  const attempt = async (signal: AbortSignal): Promise<void> => {
    try {
      await store.put(key, bytes, { ifAbsent: true, signal });
    } catch (error) {
      // One that landed meanwhile: any that is whole and of this commit will do.
      if (!isStoreError(error, "exists", "unsupported")) throw error;
      if (isStoreError(error, "unsupported")) await store.put(key, bytes, { signal });
    }
  };
  await withinTime(attempt, { clock, signal, limitMs: putTimeoutMs(bytes.length) });
}

function headerOf(
  snapshot: Index,
  { head, user, machine, clock }: CheckpointOptions & { readonly head: Head },
): CheckpointHeader {
  return {
    format: FORMAT,
    position: head.position,
    id: head.id,
    user,
    machine,
    time: Math.floor(clock.now()),
    entryCount: snapshot.totals().entries,
    commits: snapshot.headersAfter(snapshot.checkpoint()?.position ?? 0),
  };
}

function* entriesOf(snapshot: Index, moved: Moved): Generator<Entry> {
  for (const { entry, stamp } of snapshot.all()) {
    const extents = entry.type === "file" ? moved.get(entry.sha256) : undefined;
    yield extents && stamp !== UNRESTORED ? { ...entry, extents: [...extents] } : entry;
  }
}

/**
 * Reads a manifest to its end. Throws CodecError where it is not whole, and where it is of another history. True if it
 * names the places that contents were moved to, which one of an earlier attempt does not.
 */
async function verify(
  bytes: Uint8Array,
  {
    key,
    header,
    moved,
  }: { readonly key: string; readonly header: CheckpointHeader; readonly moved: Moved },
): Promise<boolean> {
  const found = await decodeManifest(bytes, { key });
  const named = new Set<string>();
  for await (const entry of found.entries) {
    if (entry.type !== "file") continue;
    const extents = moved.get(entry.sha256);
    if (extents && Bun.deepEquals(entry.extents, extents)) named.add(entry.sha256);
  }
  if (found.header.id !== header.id || found.header.entryCount !== header.entryCount)
    throw new Error(`Cannot use "${key}": it is of another history`);
  return named.size === moved.size;
}

async function relocate(index: CheckpointOptions["index"], moved: Moved): Promise<void> {
  const all = [...moved];
  for (let at = 0; at < all.length; at += RELOCATED_PER_TURN) {
    index.relocate(
      new Map(
        all.slice(at, at + RELOCATED_PER_TURN).map(([hash, extents]) => [hash, [...extents]]),
      ),
    );
    await nextTurn();
  }
}
