import { closeSync, read } from "node:fs";

import type { Clock } from "../../platform/clock.ts";
import { nextTurn } from "../../platform/clock.ts";
import { isStoreError, type BodySource, type Store } from "../../store/store.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { keys, type FileEntry } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import { putTimeoutMs } from "../patience.ts";
import { ContentChanged } from "../read/reading.ts";
import { withinTime } from "../within-time.ts";

const CHUNK_BYTES = 1024 * 1024;
const ENTRIES_PER_TURN = 100;
/** Files that are tried for one blob. */
const MAX_TRIES = 10;

export interface ResendOptions {
  readonly store: Pick<Store, "put">;
  /** Where blobs are looked for: all entries of the tree, of one moment. */
  readonly entries: () => Iterable<IndexedEntry>;
  /** The volume, without private folders. */
  readonly root: Root;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Bytes of a file that are bytes of a blob. */
interface Slice {
  readonly inFile: number;
  readonly inBlob: number;
  readonly length: number;
}

interface Candidate {
  readonly path: string;
  readonly slices: readonly Slice[];
  readonly sizeBytes: number;
}

/**
 * Sends a blob again whose copy in the store is damaged or gone, from a file on the volume that still has all of its bytes.
 * Resolves with the file's path; undefined where there is none. The hash decides: nothing else is ever stored.
 */
export async function resend(hash: string, options: ResendOptions): Promise<string | undefined> {
  const { store, root, clock, signal } = options;
  for (const candidate of await candidatesOf(hash, options)) {
    signal.throwIfAborted();
    const { path, sizeBytes } = candidate;
    let fd: number;
    try {
      using place = root.place(path, { links: "refuse" });
      fd = place.dir.openFile(place.name);
    } catch (error) {
      if (isVolumeError(error, "failing")) throw error;
      continue;
    }
    try {
      const body = sourceOf(candidate, { fd, hash });
      const put = (signal: AbortSignal): Promise<void> =>
        store.put(keys.blob(hash), body, { signal });
      await withinTime(put, { clock, signal, limitMs: putTimeoutMs(sizeBytes) });
      return path;
    } catch (error) {
      // The file has other bytes by now, or cannot be read.
      const isChanged = isStoreError(error) && error.cause instanceof ContentChanged;
      if (signal.aborted || (isStoreError(error) && !isChanged)) throw error;
    } finally {
      closeSync(fd);
    }
  }
  return undefined;
}

async function candidatesOf(hash: string, { entries }: ResendOptions): Promise<Candidate[]> {
  const found: Candidate[] = [];
  let done = 0;
  for (const { entry } of entries()) {
    done += 1;
    if (done % ENTRIES_PER_TURN === 0) await nextTurn();
    const candidate = entry.type === "file" ? candidateOf(entry, hash) : undefined;
    if (candidate) found.push(candidate);
    if (found.length === MAX_TRIES) break;
  }
  return found;
}

/** Undefined unless the file has all bytes of the blob, from its first on. */
function candidateOf({ path, extents }: FileEntry, hash: string): Candidate | undefined {
  const slices: Slice[] = [];
  let inFile = 0;
  for (const { blob, offset, length } of extents) {
    if (blob === hash) slices.push({ inFile, inBlob: offset, length });
    inFile += length;
  }
  slices.sort((a, b) => a.inBlob - b.inBlob);
  const needed: Slice[] = [];
  let sizeBytes = 0;
  for (const { inFile, inBlob, length } of slices) {
    if (inBlob > sizeBytes) return undefined;
    // What an earlier slice has given already.
    const skip = sizeBytes - inBlob;
    if (skip >= length) continue;
    needed.push({ inFile: inFile + skip, inBlob: sizeBytes, length: length - skip });
    sizeBytes += length - skip;
  }
  return sizeBytes > 0 ? { path, slices: needed, sizeBytes } : undefined;
}

function sourceOf(
  { path, slices, sizeBytes }: Candidate,
  { fd, hash }: { readonly fd: number; readonly hash: string },
): BodySource {
  return {
    sizeBytes,
    async *open() {
      const hasher = new Bun.CryptoHasher("sha256");
      let held: Uint8Array | undefined;
      for (const { inFile, length } of slices) {
        for (let done = 0; done < length;) {
          const chunk = await readAt(fd, inFile + done, Math.min(CHUNK_BYTES, length - done));
          if (chunk.length === 0) throw new ContentChanged(path);
          done += chunk.length;
          hasher.update(chunk);
          if (held) yield held;
          held = chunk;
        }
      }
      // The last chunk is given only once all of them have the hash.
      if (hasher.digest("hex") !== hash) throw new ContentChanged(path);
      if (held) yield held;
    },
  };
}

function readAt(fd: number, offset: number, size: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    read(fd, Buffer.allocUnsafe(size), 0, size, offset, (error, length, buffer) => {
      if (error) reject(error);
      else resolve(buffer.subarray(0, length));
    });
  });
}
