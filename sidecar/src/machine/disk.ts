import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { Root } from "../volume/root.ts";
import { belowReserve, isReadOnly, readSpace, type Space } from "../volume/space.ts";

const EVERY_MS = 10_000;
const UNKNOWN: Space = { bytes: 0, free: 0, files: 0 };

export interface DiskOptions {
  readonly root: Root;
  readonly clock: Clock;
  readonly log: Logger;
  /** The reserve was reached, or is free again. */
  readonly onLow: (low: boolean) => void;
}

/** Measures the volume's space from time to time, for the status and for whoever must not fill it. */
export class Disk {
  readonly #options: DiskOptions;
  #space: Space = UNKNOWN;
  #low = false;
  #isReadOnly = false;
  #failing = false;
  #cancel: (() => void) | undefined;

  constructor(options: DiskOptions) {
    this.#options = options;
  }

  get space(): Space {
    return this.#space;
  }

  /** True while what is free is the machine's reserve. */
  get isLow(): boolean {
    return this.#low;
  }

  /** True while nothing at all can be written. */
  get isReadOnly(): boolean {
    return this.#isReadOnly;
  }

  /** Resolves when the first figures are there. */
  async start(): Promise<void> {
    await this.#measure();
  }

  stop(): void {
    this.#cancel?.();
  }

  async #measure(): Promise<void> {
    const { root, clock, log, onLow } = this.#options;
    try {
      using top = root.dir("");
      this.#isReadOnly = isReadOnly(top);
      this.#space = await readSpace(top);
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) log.error({ error }, "Cannot measure the volume");
      this.#failing = true;
    }
    const low = belowReserve(this.#space);
    if (low !== this.#low) {
      this.#low = low;
      onLow(low);
    }
    // A failure is caught above, so that nothing can be thrown to nobody here.
    this.#cancel = clock.after(EVERY_MS, () => void this.#measure());
  }
}
