import type { DirtyItem } from "../notice/dirty.ts";
import type { Reading } from "../read/reading.ts";
import { dispose } from "./batch.ts";

/** Each has its turn in the process that reads databases, and holds a few descriptors until then. */
const MAX_DATABASES = 64;
/** Each is being hashed. */
const MAX_FILES = 4;

export interface LateOptions {
  /** True while this path is read as a database. */
  readonly isDatabase: (path: string) => boolean;
  /** Told when one more can be taken. */
  readonly onDone: () => void;
}

/** A reading that came after its batch, or what it failed with. */
export interface LateReading {
  readonly item: DirtyItem;
  readonly reading?: Reading;
  readonly error?: unknown;
  /** What was taken of the same path meanwhile: to be read after it. */
  readonly behind: readonly DirtyItem[];
}

interface Going {
  readonly item: DirtyItem;
  readonly isDatabase: boolean;
  readonly behind: DirtyItem[];
}

/** Readings that take long. They go on while others are committed, and join the commit after they have come to their end. */
export class LateReadings {
  readonly #options: LateOptions;
  readonly #going = new Map<string, Going>();
  #done: LateReading[] = [];
  #ended: (() => void) | undefined;
  #isEnding = false;

  constructor(options: LateOptions) {
    this.#options = options;
  }

  /** How many are not taken yet. */
  get size(): number {
    return this.#going.size + this.#done.length;
  }

  get hasDone(): boolean {
    return this.#done.length > 0;
  }

  /** The reading of `item`, or undefined where it is late: not there when `deadline` resolves. Rejects as the reading does until then. */
  async inTime(
    item: DirtyItem,
    { reading, deadline }: { readonly reading: Promise<Reading>; readonly deadline: Promise<void> },
  ): Promise<Reading | undefined> {
    const first = await Promise.race([reading, deadline]);
    if (first) return first;
    const isDatabase = this.#options.isDatabase(item.path);
    const others = [...this.#going.values()].filter((going) => going.isDatabase === isDatabase);
    if (others.length >= (isDatabase ? MAX_DATABASES : MAX_FILES)) return reading;
    const going = { item, isDatabase, behind: [] };
    this.#going.set(item.path, going);
    void this.#follow(going, reading);
    return undefined;
  }

  /** True where the path of `item` is late: the item is kept until that reading is taken. */
  holds(item: DirtyItem): boolean {
    const going = this.#going.get(item.path);
    going?.behind.push(item);
    return going !== undefined;
  }

  /** What has come to its end by now; the contents are the caller's. */
  take(): readonly LateReading[] {
    const done = this.#done;
    this.#done = [];
    return done;
  }

  /** Resolves when none is going on any more; gives back what they hold. */
  async end(): Promise<void> {
    this.#isEnding = true;
    for (const { reading } of this.take()) if (reading) dispose([reading]);
    if (this.#going.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = resolve;
    await promise;
  }

  async #follow({ item, behind }: Going, reading: Promise<Reading>): Promise<void> {
    try {
      const result = await reading;
      if (this.#isEnding) dispose([result]);
      else this.#done.push({ item, behind, reading: result });
    } catch (error) {
      this.#done.push({ item, behind, error });
    }
    this.#going.delete(item.path);
    if (this.#going.size === 0) this.#ended?.();
    this.#options.onDone();
  }
}
