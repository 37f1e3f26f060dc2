import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";

import { extract, pack } from "tar-stream";

import { nextTurn } from "../../platform/clock.ts";
import { CodecError, isCodecError } from "./codec-error.ts";
import {
  FORMAT,
  commitSchema,
  entrySchema,
  memberName,
  type Commit,
  type FileEntry,
} from "./format.ts";

/** The first member of a commit's tar: what the commit says. The others are contents. */
const COMMIT_MEMBER = ".commit.json";

/**
 * A commit's tar is never larger than this, compressed or not: what reading one can cost in memory, whatever it claims.
 * A batch of 8 MiB of contents and 20,000 entries stays far below.
 */
export const MAX_COMMIT_BYTES = 128 * 1024 * 1024;

/** Measured on transcripts: level 6 takes twice the time of 3 for 5 % less, level 1 saves a third of the time for 12 % more. */
const LEVEL = 3;

/** So many entries are put into words before others get their turn: about 2 ms. */
const ENTRIES_PER_TURN = 1_000;
const MEMBERS_PER_TURN = 100;
const BLOCK = 512;

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

export interface DecodeOptions {
  /** What the error says could not be read: the object's key. */
  readonly key?: string;
}

export interface DecodedCommit {
  readonly commit: Commit;
  /** Contents by the name of their member, as extents say it. Views of one buffer: copy what is kept for long. */
  readonly members: ReadonlyMap<string, Uint8Array>;
}

/**
 * A commit as the object that stands in the store: a tar, compressed with zstd, that puts its small files in place below
 * `data/` when it is unpacked. `members` are contents by the name that the extents of `commit` give them. Throws where it
 * would be too large to be read again.
 */
export async function encodeCommit(
  commit: Commit,
  members: ReadonlyMap<string, Uint8Array>,
): Promise<Uint8Array> {
  const files = new Map<string, FileEntry>();
  for (const entry of commit.entries) {
    if (entry.type === "file") files.set(memberName(entry.path), entry);
  }
  const tar = new TarWriter();
  const json = await wordsOf(commit);
  await tar.add(COMMIT_MEMBER, json, { mode: 0o644, mtimeMs: commit.time });
  let written = 0;
  for (const [name, bytes] of members) {
    const file = files.get(name);
    const mtimeMs = file ? Number(BigInt(file.mtimeNs) / 1_000_000n) : commit.time;
    await tar.add(name, bytes, { mode: file?.mode ?? 0o644, mtimeMs });
    written += 1;
    if (written % MEMBERS_PER_TURN === 0) await nextTurn();
  }
  return compressed(await tar.finish());
}

/** Contents alone, by the names that extents give them, as a checkpoint's part: a tar like a commit's. */
export async function encodePart(
  members: ReadonlyMap<string, Uint8Array>,
  { timeMs }: { readonly timeMs: number },
): Promise<Uint8Array> {
  const tar = new TarWriter();
  let written = 0;
  for (const [name, bytes] of members) {
    await tar.add(name, bytes, { mode: 0o644, mtimeMs: timeMs });
    written += 1;
    if (written % MEMBERS_PER_TURN === 0) await nextTurn();
  }
  return compressed(await tar.finish());
}

/**
 * Throws where a commit, once written, would be refused by `decodeCommit`: asked before one is written, because a history
 * with such a commit in it cannot be read beyond.
 */
export async function checkCommit(
  commit: Commit,
  members: ReadonlyMap<string, Uint8Array>,
): Promise<void> {
  try {
    const { entries, ...rest } = commit;
    commitSchema.parse({ ...rest, entries: [] });
    for (let at = 0; at < entries.length; at += ENTRIES_PER_TURN) {
      for (const entry of entries.slice(at, at + ENTRIES_PER_TURN)) entrySchema.parse(entry);
      if (entries.length > ENTRIES_PER_TURN) await nextTurn();
    }
    checkContents(commit, members);
  } catch (error) {
    throw new Error("Cannot store a commit: it could not be read again", { cause: error });
  }
}

/** The commit that `bytes` hold, checked against itself. Throws CodecError. */
export async function decodeCommit(
  bytes: Uint8Array,
  options: DecodeOptions = {},
): Promise<DecodedCommit> {
  const { key = "the commit" } = options;
  try {
    const tar = await decompressed(bytes);
    const members = await membersOf(tar);
    const json = members.get(COMMIT_MEMBER);
    if (json === undefined || members.keys().next().value !== COMMIT_MEMBER)
      throw new Error(`its first member is not ${COMMIT_MEMBER}`);
    members.delete(COMMIT_MEMBER);
    const commit = commitSchema.parse(parseVersioned(json, key));
    checkContents(commit, members);
    return { commit, members };
  } catch (error) {
    if (isCodecError(error)) throw error;
    throw new CodecError("corrupt", `Cannot read "${key}": it is damaged`, { cause: error });
  }
}

/** The contents alone of a commit or of a checkpoint's part, for readers that check each against its hash. Throws CodecError. */
export async function decodeMembers(
  bytes: Uint8Array,
  options: DecodeOptions = {},
): Promise<ReadonlyMap<string, Uint8Array>> {
  const { key = "the pack" } = options;
  try {
    const members = await membersOf(await decompressed(bytes));
    members.delete(COMMIT_MEMBER);
    return members;
  } catch (error) {
    throw new CodecError("corrupt", `Cannot read "${key}": it is damaged`, { cause: error });
  }
}

/** JSON whose `format` this sidecar knows. Throws CodecError `newer`, and SyntaxError. */
export function parseVersioned(json: Uint8Array | string, key: string): unknown {
  const text =
    typeof json === "string" ? json : new TextDecoder("utf-8", { fatal: true }).decode(json);
  const value: unknown = JSON.parse(text);
  const format = (value as { format?: unknown } | null)?.format;
  if (typeof format === "number" && format > FORMAT) {
    throw new CodecError(
      "newer",
      `Cannot read "${key}": it has format ${format}, this sidecar knows ${FORMAT}; use the newer image that wrote it`,
    );
  }
  return value;
}

/** `.commit.json`, put into words piece by piece. */
async function wordsOf(commit: Commit): Promise<Buffer> {
  const { entries, deleted, ...header } = commit;
  const pieces = [`${JSON.stringify(header).slice(0, -1)},"entries":[`];
  for (let at = 0; at < entries.length; at += ENTRIES_PER_TURN) {
    const words = JSON.stringify(entries.slice(at, at + ENTRIES_PER_TURN)).slice(1, -1);
    pieces.push(at === 0 ? words : `,\n${words}`);
    if (entries.length > ENTRIES_PER_TURN) await nextTurn();
  }
  pieces.push(`],"deleted":${JSON.stringify(deleted)}}\n`);
  return Buffer.from(pieces.join(""));
}

class TarWriter {
  readonly #pack = pack();
  readonly #chunks: Uint8Array[] = [];
  readonly #done: Promise<void>;
  #bytes = 0;

  constructor() {
    this.#done = new Promise((resolve, reject) => {
      this.#pack.on("error", reject);
      this.#pack.on("end", resolve);
    });
    this.#pack.on("data", (chunk) => {
      const bytes = chunk as Uint8Array;
      this.#chunks.push(bytes);
      this.#bytes += bytes.byteLength;
    });
  }

  async add(
    name: string,
    bytes: Uint8Array,
    { mode, mtimeMs }: { readonly mode: number; readonly mtimeMs: number },
  ): Promise<void> {
    // UTF-8 has no half of a pair: such a name would come back as another one.
    if (!name.isWellFormed()) throw new Error(`Cannot store "${name}": it is not Unicode`);
    const header = {
      name,
      type: "file",
      // With the bits of a regular file, so that mode 000 is not taken for "none given".
      mode: 0o100000 | mode,
      // What a tar header can say; `.commit.json` has it exactly.
      mtime: new Date(Math.min(Math.max(mtimeMs, 0), 0x7fffffff * 1000)),
    } as const;
    const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    await new Promise<void>((resolve, reject) => {
      this.#pack.entry(header, content, (error) => (error ? reject(error) : resolve()));
    });
    if (this.#bytes > MAX_COMMIT_BYTES) {
      throw new Error(`Cannot store a commit: it is larger than ${MAX_COMMIT_BYTES} bytes`);
    }
  }

  async finish(): Promise<Uint8Array> {
    this.#pack.finalize();
    await this.#done;
    return Buffer.concat(this.#chunks);
  }
}

async function membersOf(tar: Uint8Array): Promise<Map<string, Uint8Array>> {
  // Bun's zstd takes a cut frame for a whole one; the end of the tar is the proof that nothing is missing.
  if (tar.length < 3 * BLOCK || tar.subarray(-2 * BLOCK).some((byte) => byte !== 0)) {
    throw new Error("it ends too early");
  }
  const members = new Map<string, Uint8Array>();
  const reader = extract();
  reader.end(tar);
  for await (const entry of reader) {
    const { name, type, size } = entry.header;
    if (type !== "file") throw new Error(`"${name}" is no ordinary file`);
    if (members.has(name)) throw new Error(`"${name}" is in it twice`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry) chunks.push(chunk as Uint8Array);
    const bytes = chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
    if (bytes.length !== size) throw new Error(`"${name}" is cut`);
    members.set(name, bytes);
    if (members.size % MEMBERS_PER_TURN === 0) await nextTurn();
  }
  return members;
}

/** Throws unless every content adds up, and what it takes from this very commit is there. */
function checkContents(commit: Commit, members: ReadonlyMap<string, Uint8Array>): void {
  const paths = new Set<string>();
  for (const entry of commit.entries) {
    if (paths.has(entry.path)) throw new Error(`"${entry.path}" is in it twice`);
    paths.add(entry.path);
    if (entry.type !== "file") continue;
    let size = 0;
    for (const extent of entry.extents) {
      size += extent.length;
      if (!("commit" in extent) || extent.commit !== commit.position) continue;
      const member = members.get(String(extent["member"]));
      if (!member || extent.offset + extent.length > member.length)
        throw new Error(`the content of "${entry.path}" is missing`);
    }
    if (size !== entry.size) throw new Error(`the content of "${entry.path}" does not add up`);
  }
}

async function compressed(bytes: Uint8Array): Promise<Uint8Array> {
  return compress(bytes, {
    params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
  });
}

async function decompressed(bytes: Uint8Array): Promise<Uint8Array> {
  return decompress(bytes, { maxOutputLength: MAX_COMMIT_BYTES });
}
