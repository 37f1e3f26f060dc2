import type { Clock } from "../../platform/clock.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { isCodecError } from "../format/codec-error.ts";
import { encodePart } from "../format/codec.ts";
import { keys, memberName, partKey, type Extent, type FileEntry } from "../format/format.ts";
import { Contents } from "../history/contents.ts";
import type { IndexedEntry } from "../index.ts";
import { putTimeoutMs } from "../patience.ts";
import { withinTime } from "../within-time.ts";
import { eachObject } from "./listing.ts";
import { planMoves, type Group, type Movable } from "./moves.ts";
import { timedReads } from "./timed-reads.ts";

/** Contents of one part, before they are compressed. */
const PART_BYTES = 8 * 1024 * 1024;
/** Contents above this are moved in several pieces. */
const PIECE_BYTES = 4 * 1024 * 1024;

export interface RepackOptions {
  readonly store: Store;
  /** All entries of the tree of `position`, each time it is called. */
  readonly entries: () => Iterable<IndexedEntry>;
  readonly position: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Repacked {
  /** Where contents stand from now on, by their sha256. */
  readonly moved: ReadonlyMap<string, readonly Extent[]>;
  readonly parts: number;
  readonly bytes: number;
  /** Paths of contents that turned out not to have their hash: they stay where they are. */
  readonly damaged: readonly string[];
}

/**
 * Puts contents that are scattered over many objects together into parts of the checkpoint at `position`, each read back
 * once it is written. What cannot be read stays where it is. Nobody points into the parts until a manifest does.
 */
export async function repack(options: RepackOptions): Promise<Repacked> {
  const movables = await planMoves(options.entries);
  const none = { moved: new Map<string, Extent[]>(), parts: 0, bytes: 0, damaged: [] };
  if (movables.length === 0) return none;
  const parts = await Parts.open(options);
  const mover = new Mover(new Contents(timedReads(options.store, options), options), parts);
  for (const movable of movables) {
    options.signal.throwIfAborted();
    await mover.move(movable);
  }
  await parts.flush();
  const { moved, damaged } = mover;
  return { moved, damaged, parts: parts.count, bytes: parts.bytes };
}

class Mover {
  readonly moved = new Map<string, readonly Extent[]>();
  readonly damaged: string[] = [];
  readonly #contents: Contents;
  readonly #parts: Parts;

  constructor(contents: Contents, parts: Parts) {
    this.#contents = contents;
    this.#parts = parts;
  }

  async move({ entry, groups }: Movable): Promise<void> {
    const isWhole = groups.every(({ moves }) => moves);
    const hasher = new Bun.CryptoHasher("sha256");
    const extents: Extent[] = [];
    for (const group of groups) {
      if (!group.moves) {
        extents.push(...group.extents);
        continue;
      }
      for (const run of runsOf(group)) {
        const bytes = await this.#read(entry, run);
        if (!bytes) return;
        if (isWhole) hasher.update(bytes);
        extents.push(await this.#parts.add(entry, bytes));
      }
    }
    // What is damaged must not go on under a new name.
    if (!isWhole || hasher.digest("hex") === entry.sha256) this.moved.set(entry.sha256, extents);
    else this.damaged.push(entry.path);
  }

  /** The bytes of these extents of a content; undefined where they cannot be had. */
  async #read(entry: FileEntry, extents: readonly Extent[]): Promise<Uint8Array | undefined> {
    const chunks: Uint8Array[] = [];
    try {
      for await (const chunk of this.#contents.read({ ...entry, extents: [...extents] }))
        chunks.push(chunk);
    } catch (error) {
      if (isCodecError(error) || isStoreError(error, "missing")) return undefined;
      throw error;
    }
    // A copy: what is read is a view of a whole decoded object.
    const bytes = new Uint8Array(Buffer.concat(chunks));
    return bytes.length === lengthOf(extents) ? bytes : undefined;
  }
}

/** The parts of one checkpoint, written one after the other. */
class Parts {
  readonly #options: RepackOptions;
  readonly #members = new Map<string, Uint8Array>();
  #pending = 0;
  #next: number;
  count = 0;
  bytes = 0;

  /** Goes on after parts that an attempt which was cut off has left, or another machine's: those may be pointed into. */
  static async open(options: RepackOptions): Promise<Parts> {
    const { store, position, signal } = options;
    const folder = keys.manifest(position).replace(/[^/]+$/, "");
    let next = 1;
    for await (const { key } of eachObject(store, folder, { signal })) {
      const n = Number(/part-(\d+)\.tar\.zst$/.exec(key)?.[1] ?? 0);
      next = Math.max(next, n + 1);
    }
    return new Parts(options, next);
  }

  private constructor(options: RepackOptions, next: number) {
    this.#options = options;
    this.#next = next;
  }

  /** Takes over bytes of a content, and says where they will stand. */
  async add({ path }: FileEntry, bytes: Uint8Array): Promise<Extent> {
    if (this.#pending > 0 && this.#pending + bytes.length > PART_BYTES) await this.flush();
    let member = memberName(path);
    for (let n = 2; this.#members.has(member); n += 1) member = `${memberName(path)}~${n}`;
    this.#members.set(member, bytes);
    this.#pending += bytes.length;
    const part = partKey(this.#options.position, this.#next);
    return { part, member, offset: 0, length: bytes.length };
  }

  /** Resolves when all that was added stands in the store and was read back. */
  async flush(): Promise<void> {
    if (this.#members.size === 0) return;
    const { store, position, clock, signal } = this.#options;
    const key = partKey(position, this.#next);
    const bytes = await encodePart(this.#members, { timeMs: clock.now() });
    const limits = { clock, signal, limitMs: putTimeoutMs(bytes.length) };
    await withinTime((signal) => putNew(store, key, { bytes, signal }), limits);
    const written = await withinTime((signal) => store.get(key, { signal }), limits);
    if (!Buffer.from(written).equals(bytes))
      throw new Error(`Cannot use "${key}": it does not come back as it was written`);
    this.#members.clear();
    this.bytes += this.#pending;
    this.#pending = 0;
    this.#next += 1;
    this.count += 1;
  }
}

/** Never over an object that is there: somebody may point into it. */
async function putNew(
  store: Store,
  key: string,
  { bytes, signal }: { readonly bytes: Uint8Array; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await store.put(key, bytes, { ifAbsent: true, signal });
  } catch (error) {
    if (!isStoreError(error, "unsupported")) throw error;
    if (await store.head(key, { signal }))
      throw new Error(`Cannot put "${key}": it is there already`, { cause: error });
    await store.put(key, bytes, { signal });
  }
}

/** The extents of a group in pieces that fit into memory and parts. */
function* runsOf({ extents }: Group): Generator<readonly Extent[]> {
  let run: Extent[] = [];
  for (const extent of extents) {
    if (run.length > 0 && lengthOf(run) + extent.length > PIECE_BYTES) {
      yield run;
      run = [];
    }
    run.push(extent);
  }
  if (run.length > 0) yield run;
}

function lengthOf(extents: readonly Extent[]): number {
  return extents.reduce((sum, { length }) => sum + length, 0);
}
