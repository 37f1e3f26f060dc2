import { FilesError } from "./files-error.ts";

/** What one request may hold besides: so much is always there, whatever the others do. */
const FREE_BYTES = 64 * 1024;

/** The memory that all requests together may fill with what they are sent and answer. */
export class MemoryBudget {
  readonly #limitBytes: number;
  #heldBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** Counts what one request holds, until it is disposed of. */
  open(): MemoryShare {
    let bytes = 0;
    let counted = 0;
    let over = false;
    const grow = (to: number): void => {
      if (over || to <= bytes) return;
      const more = Math.max(0, to - FREE_BYTES) - counted;
      if (more > 0 && this.#heldBytes + more > this.#limitBytes) {
        throw new FilesError(
          "busy",
          "Cannot hold so much in memory: too much is asked for at once",
        );
      }
      bytes = to;
      counted += more;
      this.#heldBytes += more;
    };
    return {
      grow,
      add: (more) => grow(bytes + more),
      [Symbol.dispose]: () => {
        over = true;
        this.#heldBytes -= counted;
        counted = 0;
      },
    };
  }
}

export interface MemoryShare extends Disposable {
  /** Holds so many bytes in all, or what it holds already if that is more. Throws FilesError `busy` where the others hold too much. */
  grow(toBytes: number): void;
  /** Holds so many bytes more. Throws FilesError `busy`. */
  add(bytes: number): void;
}
