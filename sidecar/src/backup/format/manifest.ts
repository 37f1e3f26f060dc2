import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";

import { nextTurn } from "../../platform/clock.ts";
import { CodecError, isCodecError } from "./codec-error.ts";
import { parseVersioned, type DecodeOptions } from "./codec.ts";
import {
  checkpointHeaderSchema,
  entrySchema,
  type CheckpointHeader,
  type Entry,
} from "./format.ts";

/** One line, decompressed: a file of 2 GiB that is known by blocks of 64 KiB takes some 5 MB. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;
/** A whole manifest, decompressed: some 3 million entries. */
const MAX_MANIFEST_BYTES = 2 * 1024 * 1024 * 1024;

/** Lines are handed on in pieces of about this size, each put into words in a few milliseconds. */
const PIECE_CHARS = 128 * 1024;
const LEVEL = 3;
const NEWLINE = 0x0a;

export interface DecodedManifest {
  readonly header: CheckpointHeader;
  /** Read to the end to know that it is whole: throws CodecError on its way. Can be read once. */
  readonly entries: AsyncGenerator<Entry, void, undefined>;
}

/**
 * A checkpoint's manifest as the object that stands in the store: lines of JSON, compressed with zstd. `entries` are taken
 * one by one, so it may be a cursor. Throws where their number is not the one that `header` promises.
 */
export async function encodeManifest(
  header: CheckpointHeader,
  entries: Iterable<Entry>,
): Promise<Uint8Array> {
  const stream = createZstdCompress({
    params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
  });
  const sent = collect(stream);
  // Handled where it is awaited; a failure below must not leave it as an unhandled one.
  sent.catch(() => undefined);
  let count = 0;
  let piece = `${JSON.stringify(header)}\n`;
  const flush = async (): Promise<void> => {
    await write(stream, piece);
    piece = "";
    await nextTurn();
  };
  try {
    for (const entry of entries) {
      piece += `${JSON.stringify(entry)}\n`;
      count += 1;
      if (piece.length >= PIECE_CHARS) await flush();
    }
    if (count !== header.entryCount)
      throw new Error(
        `Cannot write a manifest: it has ${count} entries, not the ${header.entryCount} of its header`,
      );
    await flush();
  } catch (error) {
    stream.destroy();
    throw error;
  }
  stream.end();
  return sent;
}

/** Reads the first line of a manifest at once and the entries as they are asked for. Throws CodecError. */
export async function decodeManifest(
  bytes: Uint8Array,
  options: DecodeOptions = {},
): Promise<DecodedManifest> {
  const { key = "the manifest" } = options;
  const lines = linesOf(bytes);
  try {
    const first = await lines.next();
    if (first.done) throw new Error("it is empty");
    const header = checkpointHeaderSchema.parse(parseVersioned(first.value, key));
    return { header, entries: entriesOf(lines, header, key) };
  } catch (error) {
    await lines.return();
    throw asCodecError(error, key);
  }
}

async function* entriesOf(
  lines: AsyncGenerator<string, void, undefined>,
  header: CheckpointHeader,
  key: string,
): AsyncGenerator<Entry, void, undefined> {
  let count = 0;
  try {
    for await (const line of lines) {
      count += 1;
      yield entrySchema.parse(JSON.parse(line));
    }
    if (count !== header.entryCount)
      throw new Error(`it has ${count} entries, not the ${header.entryCount} of its header`);
  } catch (error) {
    throw asCodecError(error, key);
  }
}

/** The lines of a compressed text, without their newlines. The text must end with one. */
async function* linesOf(bytes: Uint8Array): AsyncGenerator<string, void, undefined> {
  const stream = createZstdDecompress();
  stream.end(bytes);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let total = 0;
  // What of the current line came in earlier pieces.
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const piece of stream as AsyncIterable<Uint8Array>) {
    total += piece.length;
    if (total > MAX_MANIFEST_BYTES) throw new Error("it is too large");
    let start = 0;
    for (let end = piece.indexOf(NEWLINE); end >= 0; end = piece.indexOf(NEWLINE, start)) {
      held.push(piece.subarray(start, end));
      yield decoder.decode(held.length === 1 ? held[0] : Buffer.concat(held));
      held = [];
      heldBytes = 0;
      start = end + 1;
    }
    held.push(piece.subarray(start));
    heldBytes += piece.length - start;
    if (heldBytes > MAX_LINE_BYTES) throw new Error("a line is too long");
    await nextTurn();
  }
  // Bun's zstd takes a cut frame for a whole one.
  if (heldBytes > 0 || total === 0) throw new Error("it ends too early");
}

async function write(stream: ReturnType<typeof createZstdCompress>, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function asCodecError(error: unknown, key: string): CodecError {
  if (isCodecError(error)) return error;
  return new CodecError("corrupt", `Cannot read "${key}": it is damaged`, { cause: error });
}
