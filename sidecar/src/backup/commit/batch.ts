import type { Reading } from "../read/reading.ts";
import { contentOf, pathOf } from "./plan.ts";

/** What a commit may come to at most: its memory, and the time until its first change is durable. */
export interface BatchLimits {
  readonly entries: number;
  /** Deltas may go beyond it, by those of one group: see MAX_HELD_BYTES in delta.ts. */
  readonly inlineBytes: number;
  /** Of all paths together, and what else is listed of a file: they stand in a commit several times each. */
  readonly pathBytes: number;
  /** Each holds a descriptor until it is sent. */
  readonly blobs: number;
  readonly blobBytes: number;
}

export const BATCH_LIMITS: BatchLimits = {
  entries: 20_000,
  // Twice as much is no faster, and takes 50 to 80 MiB more while it is on its way.
  inlineBytes: 8 * 1024 * 1024,
  pathBytes: 4 * 1024 * 1024,
  blobs: 256,
  blobBytes: 256 * 1024 * 1024,
};

const EXTENT_CHARS = 64;

/** So many paths are read at the same time. */
const READING = 8;

export interface Batch {
  readonly readings: readonly Reading[];
  /** Content that must be sent, in bytes. */
  readonly bytes: number;
  /** True where a limit ended it: there is more to read. */
  readonly full: boolean;
}

export interface CollectOptions {
  /** Takes up to so many paths; none when there are no more. */
  readonly take: (limit: number) => Promise<readonly string[]>;
  /** Undefined where it takes long, and is no more of this batch. */
  readonly read: (path: string) => Promise<Reading | undefined>;
  /** What was read before. Disposed on a throw, as all of it. */
  readonly first?: readonly Reading[];
  readonly limits?: BatchLimits;
  readonly signal: AbortSignal;
}

/** Reads paths until there are none left or the batch is full. On a throw what was read is disposed; the paths taken are the caller's to put back. */
export async function collectBatch(options: CollectOptions): Promise<Batch> {
  const { take, read, first = [], signal, limits = BATCH_LIMITS } = options;
  const sum = new Sum(limits);
  const readings: Reading[] = [...first];
  for (const reading of first) sum.add(reading);
  try {
    while (!sum.full) {
      signal.throwIfAborted();
      const paths = await take(READING);
      if (paths.length === 0) break;
      const answers = await Promise.allSettled(paths.map(read));
      for (const answer of answers) {
        if (answer.status === "rejected" || !answer.value) continue;
        readings.push(answer.value);
        sum.add(answer.value);
      }
      for (const answer of answers) if (answer.status === "rejected") throw answer.reason;
    }
  } catch (error) {
    dispose(readings);
    throw error;
  }
  return { readings, bytes: sum.bytes, full: sum.full };
}

/** Gives back what readings hold that will not be committed. */
export function dispose(readings: readonly Reading[]): void {
  for (const reading of readings) {
    const content = contentOf(reading);
    if (content && content.kind !== "inline") content.dispose();
  }
}

/** What the extents of a file take, about: most name its path. */
function listedBytes(reading: Reading): number {
  if (reading.kind !== "changed" || reading.item.entry.type !== "file") return 0;
  const { path, extents } = reading.item.entry;
  const count = reading.content?.kind === "delta" ? reading.content.extents : extents.length;
  return count * (path.length + EXTENT_CHARS);
}

class Sum {
  readonly #limits: BatchLimits;
  #entries = 0;
  #inline = 0;
  #paths = 0;
  #blobs = 0;
  #blobBytes = 0;

  constructor(limits: BatchLimits) {
    this.#limits = limits;
  }

  get bytes(): number {
    return this.#inline + this.#blobBytes;
  }

  /** True where one more group of the largest inline contents might go over. */
  get full(): boolean {
    const { entries, inlineBytes, pathBytes, blobs, blobBytes } = this.#limits;
    return (
      this.#entries + READING > entries ||
      this.#inline + READING * 64 * 1024 > inlineBytes ||
      this.#paths >= pathBytes ||
      this.#blobs + READING > blobs ||
      this.#blobBytes >= blobBytes
    );
  }

  add(reading: Reading): void {
    const content = contentOf(reading);
    this.#entries += 1;
    this.#paths += pathOf(reading).length + listedBytes(reading);
    const sent = content?.kind === "delta" ? content.fresh : content;
    if (sent?.kind === "inline") this.#inline += sent.bytes.length;
    if (sent?.kind === "blob") {
      this.#blobs += 1;
      this.#blobBytes += sent.source.sizeBytes;
    }
  }
}
