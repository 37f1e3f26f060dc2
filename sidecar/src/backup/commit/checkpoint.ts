import type { Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { FORMAT, keys, type CheckpointHeader, type Entry } from "../format/format.ts";
import { decodeManifest, encodeManifest } from "../format/manifest.ts";
import type { Head, Index } from "../index.ts";
import { putTimeoutMs } from "../patience.ts";

/** Source: backup.md, "Never lose the backup". */
const AFTER_COMMITS = 500;
const AFTER_BYTES = 64 * 1024 * 1024;
const AFTER_MS = 24 * 3_600_000;
const RETRY_MS = 5 * 60_000;

export interface CheckpointsOptions {
  readonly store: Store;
  readonly index: Index;
  /** Opens the index at one moment, for reading on while commits are recorded. */
  readonly snapshot: () => Index;
  readonly clock: Clock;
  readonly log: Logger;
  readonly user: string;
  readonly machine: string;
}

/** Writes the whole tree down from time to time, so that a restore reads one manifest and few commits. Never in the way of commits. */
export class Checkpoints {
  readonly #options: CheckpointsOptions;
  #running: Promise<void> | undefined;
  #notBefore = 0;
  #failed = false;
  /** Of the commits since the last checkpoint, as far as this process has seen them. */
  #bytes = 0;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  /** Told after each commit, with its size in the store and whether nothing else is waiting. Begins a checkpoint where one is due. */
  consider(
    commit: { readonly bytes: number; readonly settled: boolean },
    signal: AbortSignal,
  ): void {
    this.#bytes += commit.bytes;
    const { clock } = this.#options;
    if (this.#running || clock.monotonic() < this.#notBefore || !this.#due(commit.settled)) return;
    this.#running = this.#attempt(signal).finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when none is being written. */
  async ended(): Promise<void> {
    await this.#running;
  }

  #due(settled: boolean): boolean {
    const { index, clock } = this.#options;
    const head = index.head();
    const last = index.checkpoint();
    if (!head || head.position === last?.position) return false;
    if (!last && settled) return true;
    return (
      head.position - (last?.position ?? 0) >= AFTER_COMMITS ||
      this.#bytes >= AFTER_BYTES ||
      (last !== undefined && clock.now() - last.time >= AFTER_MS)
    );
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const seen = this.#bytes;
    try {
      const { position, entryCount } = await writeCheckpoint(this.#options, signal);
      this.#bytes -= seen;
      this.#failed = false;
      log.info({ position, entries: entryCount }, "Checkpoint written and verified");
    } catch (error) {
      this.#notBefore = clock.monotonic() + RETRY_MS;
      if (signal.aborted || this.#failed) return;
      this.#failed = true;
      log.warn({ error }, "Cannot write a checkpoint; commits go on");
    }
  }
}

/** Writes the tree of the index as a checkpoint, reads it back, and remembers it. Throws where any of that fails; the history is whole all the same. */
export async function writeCheckpoint(
  options: CheckpointsOptions,
  signal: AbortSignal,
): Promise<CheckpointHeader> {
  const { store, index } = options;
  const { header, bytes } = await manifestOf(options);
  const key = keys.manifest(header.position);
  const limits = { signal: AbortSignal.any([signal, timeout(options, bytes.length)]) };
  try {
    await store.put(key, bytes, { ifAbsent: true, ...limits });
  } catch (error) {
    // A checkpoint that was cut off before it was remembered: any that is whole and of this commit will do.
    if (!isStoreError(error, "exists", "unsupported")) throw error;
    if (isStoreError(error, "unsupported")) await store.put(key, bytes, limits);
  }
  const written = await store.get(key, limits);
  const found = await verify(written, key);
  if (found.id !== header.id || found.entryCount !== header.entryCount)
    throw new Error(`Cannot use "${key}": it is of another history`);
  signal.throwIfAborted();
  index.setCheckpoint({ position: header.position, time: header.time });
  return header;
}

async function manifestOf(
  options: CheckpointsOptions,
): Promise<{ readonly header: CheckpointHeader; readonly bytes: Uint8Array }> {
  using snapshot = options.snapshot();
  const head = snapshot.head();
  if (!head) throw new Error("Cannot write a checkpoint: there is no commit yet");
  const header = headerOf(snapshot, { head, ...options });
  return { header, bytes: await encodeManifest(header, entriesOf(snapshot)) };
}

function headerOf(
  snapshot: Index,
  { head, user, machine, clock }: CheckpointsOptions & { readonly head: Head },
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

function* entriesOf(snapshot: Index): Generator<Entry> {
  for (const { entry } of snapshot.all()) yield entry;
}

/** Reads a manifest to its end. Throws CodecError where it is not whole. */
async function verify(bytes: Uint8Array, key: string): Promise<CheckpointHeader> {
  const { header, entries } = await decodeManifest(bytes, { key });
  for await (const _ of entries) continue;
  return header;
}

function timeout({ clock }: CheckpointsOptions, sizeBytes: number): AbortSignal {
  const late = new AbortController();
  clock.after(2 * putTimeoutMs(sizeBytes), () =>
    late.abort(new Error("Cannot write a checkpoint: it took too long")),
  );
  return late.signal;
}
