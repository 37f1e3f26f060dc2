import { closeSync, read, readSync } from "node:fs";

import { volumeError } from "../../volume/volume-error.ts";
import { BlockHasher, MIN_BLOCKS_BYTES } from "../format/blocks.ts";
import { DeltaFinder, type Delta, type DeltaBase, type Range } from "./delta.ts";
import { ContentChanged, type NewContent } from "./reading.ts";

const CHUNK_BYTES = 1024 * 1024;

/** At most `size` bytes from the start of an open file, in one read as far as the kernel gives them in one. */
export function readStart(fd: number, size: number): Buffer {
  const buffer = Buffer.allocUnsafe(size);
  let length = 0;
  while (length < size) {
    const got = readSync(fd, buffer, length, size - length, length);
    if (got === 0) break;
    length += got;
  }
  return buffer.subarray(0, length);
}

/** What was read of a file. */
export interface Content {
  readonly sha256: string;
  readonly length: number;
  /** Of larger contents: see BlockHasher. */
  readonly blocks?: Uint8Array | undefined;
  /** The same content by what it has in common with the base, where that is worth while. */
  readonly delta?: Delta | undefined;
}

export interface ReadOptions {
  /** No more is read, whatever there is. */
  readonly size: number;
  readonly base?: DeltaBase | undefined;
  /** Sees every chunk, which is not its own once it returns. */
  readonly each?: (chunk: Buffer) => void;
}

/** Reads an open file from its start, once: everything it says is of the very same bytes. */
export async function readContent(fd: number, { size, base, each }: ReadOptions): Promise<Content> {
  const hasher = new Bun.CryptoHasher("sha256");
  const isLarge = size >= MIN_BLOCKS_BYTES;
  const finder = isLarge && base ? new DeltaFinder(base, size) : undefined;
  const blocks = isLarge ? new BlockHasher((block, hash) => finder?.add(block, hash)) : undefined;
  let length = 0;
  // One buffer for all of it: Bun would let hundreds pile up.
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size));
  while (length < size) {
    const room = buffer.subarray(0, Math.min(buffer.length, size - length));
    const chunk = await readChunk(fd, room, length);
    if (chunk.length === 0) break;
    hasher.update(chunk);
    blocks?.update(chunk);
    each?.(chunk);
    length += chunk.length;
  }
  const hashes = blocks?.finish();
  return {
    sha256: hasher.digest("hex"),
    length,
    ...(length >= MIN_BLOCKS_BYTES ? { blocks: hashes, delta: finder?.finish() } : {}),
  };
}

/** The bytes of an open file from its start, never more than `size`. Every chunk is a buffer of its own. */
export function chunksOf(fd: number, size: number): AsyncGenerator<Buffer> {
  return chunksIn(fd, [{ offset: 0, length: size }]);
}

/** The bytes that stand in these ranges; fewer where the file ends before. */
async function* chunksIn(fd: number, ranges: readonly Range[]): AsyncGenerator<Buffer> {
  for (const { offset, length } of ranges) {
    for (let at = offset; at < offset + length;) {
      const room = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, offset + length - at));
      const chunk = await readChunk(fd, room, at);
      if (chunk.length === 0) return;
      at += chunk.length;
      yield chunk;
    }
  }
}

export interface BlobOptions {
  /** For messages. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  /** Where the bytes stand in the file; from its start, where none are given. */
  readonly ranges?: readonly Range[];
  /** Called where the bytes turned out not to be those of `sha256`. */
  readonly onChanged?: (() => void) | undefined;
}

/** The content of an open file, or some ranges of it, which it owns from now on: read again whenever it is sent, and checked each time. */
export function blobOf(fd: number, options: BlobOptions): Extract<NewContent, { kind: "blob" }> {
  let closed = false;
  return {
    kind: "blob",
    source: {
      sizeBytes: options.size,
      open() {
        if (closed) throw new Error(`Cannot read "${options.path}": its content was disposed of`);
        return checkedChunks(fd, options, () => closed);
      },
    },
    dispose() {
      if (closed) return;
      closed = true;
      closeSync(fd);
    },
  };
}

/** The chunks, of which the last is given only once all of them have the hash. */
async function* checkedChunks(
  fd: number,
  options: BlobOptions,
  isClosed: () => boolean,
): AsyncGenerator<Uint8Array> {
  const hasher = new Bun.CryptoHasher("sha256");
  let held: Uint8Array | undefined;
  let length = 0;
  const { ranges = [{ offset: 0, length: options.size }] } = options;
  for await (const chunk of chunksIn(fd, ranges)) {
    // The number of the descriptor may be another file's by now.
    if (isClosed()) throw new Error(`Cannot read "${options.path}": its content was disposed of`);
    hasher.update(chunk);
    length += chunk.length;
    if (held) yield held;
    if (isClosed()) throw new Error(`Cannot read "${options.path}": its content was disposed of`);
    held = chunk;
  }
  if (length !== options.size || hasher.digest("hex") !== options.sha256) {
    options.onChanged?.();
    throw new ContentChanged(options.path);
  }
  if (held) yield held;
}

function readChunk(fd: number, into: Buffer, offset: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    read(fd, into, 0, into.length, offset, (error, length, buffer) => {
      if (error) reject(volumeError(error, "read", "an open file"));
      else resolve(buffer.subarray(0, length));
    });
  });
}
