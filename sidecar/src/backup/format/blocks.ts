/**
 * What changed in a content is found by blocks of this size, counted from its start: a multiple of every page size of SQLite,
 * whose pages keep their place. Source: backup.md, "Send little".
 */
export const BLOCK_BYTES = 64 * 1024;
/** So much of a block's SHA-256 is kept: enough to tell any two blocks apart. */
export const BLOCK_HASH_BYTES = 16;
/** Of smaller contents nothing is known by blocks: they are sent whole. */
export const MIN_BLOCKS_BYTES = 256 * 1024;

const EXPECTED_BLOCKS = 64;

/** The hash by which a block, or the start of one, is known. */
export function hashOfBlock(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(32);
  Bun.CryptoHasher.hash("sha256", bytes, whole);
  return whole.subarray(0, BLOCK_HASH_BYTES);
}

/** Told of each block, the last of which may be shorter. The bytes are not the block's own any more once it returns. */
export type OnBlock = (bytes: Uint8Array, hash: Uint8Array) => void;

/** Hashes a content block by block, as it comes. */
export class BlockHasher {
  readonly #onBlock: OnBlock | undefined;
  /** The start of a block that came in pieces. */
  readonly #begun = new Uint8Array(BLOCK_BYTES);
  #begunBytes = 0;
  #hashes = new Uint8Array(EXPECTED_BLOCKS * BLOCK_HASH_BYTES);
  #used = 0;

  constructor(onBlock?: OnBlock) {
    this.#onBlock = onBlock;
  }

  update(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#begunBytes === 0 && chunk.length - at >= BLOCK_BYTES) {
        this.#add(chunk.subarray(at, at + BLOCK_BYTES));
        at += BLOCK_BYTES;
        continue;
      }
      const more = chunk.subarray(at, at + BLOCK_BYTES - this.#begunBytes);
      this.#begun.set(more, this.#begunBytes);
      this.#begunBytes += more.length;
      at += more.length;
      if (this.#begunBytes === BLOCK_BYTES) this.#addBegun();
    }
  }

  /** The hashes of all blocks, one after the other. To be called once, at the end. */
  finish(): Uint8Array {
    if (this.#begunBytes > 0) this.#addBegun();
    return this.#hashes.slice(0, this.#used);
  }

  #addBegun(): void {
    this.#add(this.#begun.subarray(0, this.#begunBytes));
    this.#begunBytes = 0;
  }

  #add(block: Uint8Array): void {
    const hash = hashOfBlock(block);
    if (this.#used === this.#hashes.length) {
      const larger = new Uint8Array(this.#hashes.length * 2);
      larger.set(this.#hashes);
      this.#hashes = larger;
    }
    this.#hashes.set(hash, this.#used);
    this.#used += BLOCK_HASH_BYTES;
    this.#onBlock?.(block, hash);
  }
}
