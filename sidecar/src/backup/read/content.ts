import { closeSync, read, readSync } from "node:fs";

import { volumeError } from "../../volume/volume-error.ts";
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

/** The bytes of an open file from its start, never more than `size`. Every chunk is a buffer of its own. */
export async function* chunksOf(fd: number, size: number): AsyncGenerator<Buffer> {
  let offset = 0;
  while (offset < size) {
    const chunk = await readChunk(fd, Math.min(CHUNK_BYTES, size - offset), offset);
    if (chunk.length === 0) return;
    offset += chunk.length;
    yield chunk;
  }
}

/** Reads at most `size` bytes; `each` sees every chunk. Returns their hash and number. */
export async function hashOf(
  fd: number,
  size: number,
  each?: (chunk: Buffer) => void,
): Promise<{ readonly sha256: string; readonly length: number }> {
  const hasher = new Bun.CryptoHasher("sha256");
  let length = 0;
  for await (const chunk of chunksOf(fd, size)) {
    hasher.update(chunk);
    each?.(chunk);
    length += chunk.length;
  }
  return { sha256: hasher.digest("hex"), length };
}

export interface BlobOptions {
  /** For messages. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  /** Called where the bytes turned out not to be those of `sha256`. */
  readonly onChanged?: (() => void) | undefined;
}

/** The content of an open file, which it owns from now on: read again whenever it is sent, and checked each time. */
export function blobOf(fd: number, options: BlobOptions): NewContent {
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
  for await (const chunk of chunksOf(fd, options.size)) {
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

function readChunk(fd: number, size: number, offset: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    read(fd, Buffer.allocUnsafe(size), 0, size, offset, (error, length, buffer) => {
      if (error) reject(volumeError(error, "read", "an open file"));
      else resolve(buffer.subarray(0, length));
    });
  });
}
