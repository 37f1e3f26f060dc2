import { BLOCK_BYTES, BLOCK_HASH_BYTES, MIN_BLOCKS_BYTES, hashOfBlock } from "../format/blocks.ts";
import type { Extent } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import { UNRESTORED } from "../stamp.ts";

/** What is new is held in memory, and travels in the commit, up to so many bytes. */
export const MAX_HELD_BYTES = 512 * 1024;
/** A file in more pieces is sent whole: each is listed in every commit that changes it. */
export const MAX_EXTENTS = 4_096;
/** So many small extents at the end of a file become one again, by being sent anew: an appended log has thousands otherwise. */
const SMALL_RUN = 32;
/** A delta that saves less is not worth its pieces. */
const WORTHWHILE = 3 / 4;

/** What a content is compared with: that of the same path, as the store has it. */
export interface DeltaBase {
  readonly sha256: string;
  readonly size: number;
  /** See BlockHasher. */
  readonly blocks: Uint8Array;
  readonly extents: readonly Extent[];
}

/** A slice of the base, or of all new bytes put one after the other. */
export interface Piece {
  readonly from: "base" | "new";
  readonly offset: number;
  readonly length: number;
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** A content as pieces of an earlier one and of new bytes, in order. */
export interface Delta {
  /** sha256 of the content it builds on. */
  readonly base: string;
  readonly pieces: readonly Piece[];
  readonly fresh: Fresh;
  /** How many extents it comes to. */
  readonly extents: number;
}

/** The new bytes of a delta, one after the other. */
interface Fresh {
  readonly length: number;
  readonly sha256: string;
  /** Where they stand in the content. */
  readonly ranges: readonly Range[];
  /** The bytes themselves, where they are few. */
  readonly bytes: Uint8Array | undefined;
}

/** What a new content of this entry's path can be compared with; undefined where its blocks are not known, or it cannot be built upon. */
export function baseOf(known: IndexedEntry | undefined): DeltaBase | undefined {
  if (known?.entry.type !== "file" || known.stamp === UNRESTORED || !known.blocks) return undefined;
  const { sha256, size, extents } = known.entry;
  const { blocks } = known;
  if (blocks.length !== Math.ceil(size / BLOCK_BYTES) * BLOCK_HASH_BYTES) return undefined;
  if (extents.reduce((sum, { length }) => sum + length, 0) !== size) return undefined;
  return { sha256, size, blocks, extents };
}

/**
 * Finds what a content has in common with its base, block by block while it is read: what is not proven to be the same is
 * new, so that the pieces make up exactly what was read.
 */
export class DeltaFinder {
  readonly #base: DeltaBase;
  /** From here on everything is sent anew. */
  readonly #freshFrom: number;
  /** What may be new at most. */
  readonly #limit: number;
  readonly #pieces: Piece[] = [];
  readonly #ranges: Range[] = [];
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #held: Uint8Array[] | undefined = [];
  #fresh = 0;
  #at = 0;

  /** `size`: of the content, as far as is known before it is read. */
  constructor(base: DeltaBase, size: number) {
    this.#base = base;
    this.#limit = size * WORTHWHILE;
    this.#freshFrom = startOfSmallRun(base.extents);
  }

  /** The next block and its hash, as BlockHasher gives them. */
  add(block: Uint8Array, hash: Uint8Array): void {
    const offset = this.#at;
    this.#at += block.length;
    if (this.#isHopeless) return;
    const same = Math.min(this.#common(block, hash, offset), Math.max(0, this.#freshFrom - offset));
    if (same > 0) append(this.#pieces, { from: "base", offset, length: same });
    if (same < block.length) this.#addFresh(block.subarray(same), offset + same);
  }

  /** Undefined where the content is better sent whole. */
  finish(): Delta | undefined {
    const isWorthwhile = this.#fresh < this.#at * WORTHWHILE && this.#at >= MIN_BLOCKS_BYTES;
    if (this.#isHopeless || !isWorthwhile) return undefined;
    const place = { blob: "", offset: 0, length: this.#fresh };
    const extents = extentsOf(this.#pieces, this.#base.extents, place).length;
    if (extents > MAX_EXTENTS) return undefined;
    const fresh = {
      length: this.#fresh,
      sha256: this.#hasher.digest("hex"),
      ranges: this.#ranges,
      bytes: this.#held && Buffer.concat(this.#held),
    };
    return { base: this.#base.sha256, pieces: this.#pieces, fresh, extents };
  }

  get #isHopeless(): boolean {
    return this.#fresh >= this.#limit;
  }

  /** How many bytes the base has in common with the block at `offset`, from its start. */
  #common(block: Uint8Array, hash: Uint8Array, offset: number): number {
    const { blocks, size } = this.#base;
    const known = Math.min(BLOCK_BYTES, size - offset);
    if (known <= 0 || known > block.length) return 0;
    const at = (offset / BLOCK_BYTES) * BLOCK_HASH_BYTES;
    const found = known === block.length ? hash : hashOfBlock(block.subarray(0, known));
    for (let n = 0; n < BLOCK_HASH_BYTES; n += 1) if (found[n] !== blocks[at + n]) return 0;
    return known;
  }

  #addFresh(bytes: Uint8Array, offset: number): void {
    append(this.#pieces, { from: "new", offset: this.#fresh, length: bytes.length });
    this.#hasher.update(bytes);
    this.#fresh += bytes.length;
    append(this.#ranges, { offset, length: bytes.length });
    if (this.#fresh > MAX_HELD_BYTES) this.#held = undefined;
    // A copy, which `slice` of a Buffer would not be: the block is a view of what was read at once.
    this.#held?.push(new Uint8Array(bytes));
  }
}

/** The pieces as extents: slices of the base's, and of the one that holds what is new. */
export function extentsOf(
  pieces: readonly Piece[],
  base: readonly Extent[],
  fresh: Extent,
): Extent[] {
  const extents: Extent[] = [];
  // Pieces of the base come in its order: it is gone through once.
  let index = 0;
  let start = 0;
  for (const { from, offset, length } of pieces) {
    if (from === "new") {
      push(extents, { ...fresh, offset: fresh.offset + offset, length });
      continue;
    }
    for (let at = offset; at < offset + length;) {
      const extent = base[index];
      if (!extent || at < start) throw new Error("Cannot cut extents: they are too short");
      const end = start + extent.length;
      if (end <= at) {
        start = end;
        index += 1;
        continue;
      }
      const taken = Math.min(end, offset + length) - at;
      push(extents, { ...extent, offset: extent.offset + at - start, length: taken });
      at += taken;
    }
  }
  return extents;
}

/** Where the extents begin that are all small up to the end of the content; beyond it where they are few. */
function startOfSmallRun(extents: readonly Extent[]): number {
  let first = extents.length;
  while (first > 0 && (extents[first - 1]?.length ?? 0) < BLOCK_BYTES) first -= 1;
  if (extents.length - first < SMALL_RUN) return Infinity;
  return extents.slice(0, first).reduce((sum, { length }) => sum + length, 0);
}

function append<T extends Range & { readonly from?: string }>(list: T[], next: T): void {
  const last = list.at(-1);
  if (last && last.from === next.from && last.offset + last.length === next.offset)
    list[list.length - 1] = { ...last, length: last.length + next.length };
  else list.push(next);
}

function push(extents: Extent[], next: Extent): void {
  const last = extents.at(-1);
  const goesOn =
    last !== undefined &&
    last.offset + last.length === next.offset &&
    last.blob === next.blob &&
    last.commit === next.commit &&
    last["part"] === next["part"] &&
    last["member"] === next["member"];
  if (goesOn) extents[extents.length - 1] = { ...last, length: last.length + next.length };
  else extents.push(next);
}
