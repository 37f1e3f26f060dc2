import { decodeMembers, type DecodedCommit } from "../format/codec.ts";
import { keys, type Extent, type FileEntry } from "../format/format.ts";
import type { StoreReads } from "./history.ts";

type Members = ReadonlyMap<string, Uint8Array>;

/** Decoded commits and parts are kept up to this many bytes of contents, the one used last always. */
const CACHE_BYTES = 16 * 1024 * 1024;
/** A slice of a blob up to this size is fetched as a whole, a larger one streamed. */
export const WHOLE_BYTES = 1024 * 1024;
/** Such buffers do not make Bun collect any sooner: left to itself, a restore holds dozens of them that nobody needs. */
const COLLECT_BYTES = 8 * 1024 * 1024;
/** Packs that are fetched at the same time: most are small, and far away. */
const FETCHING = 8;
/** So many slices of a file ahead of the one that is read. */
const AHEAD = 4;
/** Larger ones are decoded one after the other, for each may take many times its size. */
const LARGE_PACK_BYTES = 1024 * 1024;

/**
 * Contents of files, from wherever the store has them. A commit or part is fetched and decoded once for all the small
 * files in it, as long as these are asked for one after the other.
 */
export class Contents {
  readonly #store: StoreReads;
  readonly #signal: AbortSignal | undefined;
  readonly #cache = new Map<string, { readonly members: Members; readonly bytes: number }>();
  readonly #loading = new Map<string, Promise<Members>>();
  readonly #fetching = new Gate(FETCHING);
  readonly #decoding = new Gate(1);
  #bytes = 0;
  #decoded = 0;

  constructor(store: StoreReads, options: { readonly signal?: AbortSignal | undefined } = {}) {
    this.#store = store;
    this.#signal = options.signal;
  }

  /** Takes over the contents of a commit that was read for its entries. */
  remember({ commit, members }: DecodedCommit): void {
    if (members.size > 0) this.#keep(keys.commit(commit.position), members);
  }

  /** Drops what is in hand of the objects that hold this content, so that it is fetched again. */
  forget(entry: FileEntry): void {
    for (const extent of entry.extents) {
      const key = packOf(extent);
      if (key !== undefined) this.#drop(key);
    }
  }

  /** The content where it is in hand already: to be written without waiting. */
  inHand(entry: FileEntry): readonly Uint8Array[] | undefined {
    const pieces: Uint8Array[] = [];
    for (const extent of entry.extents) {
      const key = packOf(extent);
      const pack = key === undefined ? undefined : this.#cache.get(key);
      if (key === undefined || !pack) return undefined;
      const piece = slice(pack.members, extent);
      if (!piece) return undefined;
      this.#cache.delete(key);
      this.#cache.set(key, pack);
      pieces.push(piece);
    }
    return pieces;
  }

  /** The content in order, in pieces. Throws StoreError and CodecError; where the store has fewer bytes, it ends early. */
  async *read(entry: FileEntry): AsyncGenerator<Uint8Array, void, undefined> {
    for (const [n, extent] of entry.extents.entries()) {
      const key = packOf(extent);
      this.#prepare(entry.extents.slice(n + 1, n + 1 + AHEAD));
      if (key === undefined) {
        yield* this.#blob(extent);
        continue;
      }
      const piece = slice(await this.#members(key), extent);
      if (piece) yield piece;
    }
  }

  /** Begins to fetch what is needed next: a file that changed often has a slice in each of many commits. */
  #prepare(extents: readonly Extent[]): void {
    for (const extent of extents) {
      const key = packOf(extent);
      // What goes wrong here does so again where it is waited for.
      if (key !== undefined) void this.#members(key).catch(() => undefined);
    }
  }

  async *#blob(extent: Extent): AsyncGenerator<Uint8Array, void, undefined> {
    if (typeof extent.blob !== "string") return;
    const key = keys.blob(extent.blob);
    const range = { start: extent.offset, end: extent.offset + extent.length };
    const options = { range, signal: this.#signal };
    if (extent.length <= WHOLE_BYTES) yield await this.#store.get(key, options);
    else yield* await this.#store.stream(key, options);
  }

  async #members(key: string): Promise<Members> {
    const kept = this.#cache.get(key);
    if (kept) return kept.members;
    const running = this.#loading.get(key);
    if (running) return running;
    const loading = this.#load(key);
    this.#loading.set(key, loading);
    try {
      return await loading;
    } finally {
      this.#loading.delete(key);
    }
  }

  async #load(key: string): Promise<Members> {
    const get = (): Promise<Uint8Array> => this.#store.get(key, { signal: this.#signal });
    const bytes = await this.#fetching.run(get);
    this.#decoded += bytes.length;
    if (this.#decoded > COLLECT_BYTES) {
      Bun.gc(true);
      this.#decoded = 0;
    }
    const decode = (): Promise<Members> => decodeMembers(bytes, { key });
    const members = await (bytes.length > LARGE_PACK_BYTES ? this.#decoding.run(decode) : decode());
    this.#keep(key, members);
    return members;
  }

  #keep(key: string, members: Members): void {
    this.#drop(key);
    let bytes = 0;
    for (const member of members.values()) bytes += member.byteLength;
    this.#cache.set(key, { members, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#cache.keys()) {
      if (this.#bytes <= CACHE_BYTES || oldest === key) break;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    this.#bytes -= this.#cache.get(key)?.bytes ?? 0;
    this.#cache.delete(key);
  }
}

/** Lets so many run at the same time; the others wait in order. */
class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(free: number) {
    this.#free = free;
  }

  async run<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/** The key of the packed object an extent is in; undefined for blobs, which are not packed. */
function packOf({ commit, part }: Extent): string | undefined {
  if (typeof commit === "number") return keys.commit(commit);
  return typeof part === "string" ? part : undefined;
}

function slice(members: Members, { member, offset, length }: Extent): Uint8Array | undefined {
  if (typeof member !== "string") return undefined;
  return members.get(member)?.subarray(offset, offset + length);
}
