import type { Clock } from "../../platform/clock.ts";
import type { DirtyItem, Wanted } from "../notice/dirty.ts";
import type { ScanResult } from "../notice/scan.ts";
import type { ScanRequest } from "../notice/scanner.ts";
import type { Reading } from "../read/reading.ts";
import { collectBatch, dispose, type Batch } from "./batch.ts";
import { LateReadings } from "./late.ts";
import type { Scans } from "./scans.ts";

/** A batch waits so long for the slowest of what it reads. */
const PATIENCE_MS = 1_000;
/** While the machine is stopped, small files come first: a database is a moment's work at best. */
const HURRY_MS = 100;
/** A path that keeps changing, or was passed by others, is looked at again after so long. */
const AGAIN_MS = 300;

/** What changed and is not durable yet: see DirtySet. */
export interface DirtyPaths {
  readonly size: number;
  readonly lagMs: number;
  hint(path: string, kind?: "path" | "tree"): void;
  found(paths: Iterable<string>): void;
  /** What is due, the most precious first, and what `also` asks for, due or not. */
  take(limit: number, options?: { readonly also?: Wanted | undefined }): readonly DirtyItem[];
  /** True if anything that was not taken is wanted. */
  waitsFor(wanted: Wanted): boolean;
  /** True if anything that is not durable is wanted, taken or not. */
  owes(wanted: Wanted): boolean;
  settled(items: Iterable<DirtyItem>): void;
  putBack(items: Iterable<DirtyItem>, delayMs?: number): void;
  nextDueMs(): number | undefined;
}

export interface IntakeOptions {
  readonly clock: Clock;
  readonly dirty: DirtyPaths;
  readonly read: (path: string) => Promise<Reading>;
  readonly scan: (request: ScanRequest) => Promise<ScanResult>;
  readonly scans: Scans;
  /** True while this path is read as a database. */
  readonly isDatabase: (path: string) => boolean;
  /** Told when something that was late has been read. */
  readonly onLate: () => void;
}

/** What was taken from the dirty paths and read. */
export interface Taken {
  readonly items: readonly DirtyItem[];
  readonly batch: Batch;
}

interface TakeOptions {
  readonly also: Wanted | undefined;
  readonly signal: AbortSignal;
}

/** Turns dirty paths and folders into readings, and tells them off when these are durable. */
export class Intake {
  readonly #options: IntakeOptions;
  readonly #late: LateReadings;
  #reading = 0;
  #patienceMs = PATIENCE_MS;

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#late = new LateReadings({ isDatabase: options.isDatabase, onDone: options.onLate });
  }

  /** How many paths are being read. */
  get reading(): number {
    return this.#reading + this.#late.size;
  }

  /** True if something that was late can be committed now. */
  get hasLate(): boolean {
    return this.#late.hasDone;
  }

  /** From now on little is waited for. */
  hurry(): void {
    this.#patienceMs = HURRY_MS;
  }

  /** Resolves when nothing is being read any more. To be called after the last `take`. */
  async end(): Promise<void> {
    await this.#late.end();
  }

  /**
   * Reads what is due, and what `also` asks for, as much as a commit can hold. What takes long is not waited for: it comes
   * with a later call. On a throw everything is dirty as before.
   */
  async take({ also, signal }: TakeOptions): Promise<Taken> {
    const { dirty, clock } = this.#options;
    const late = this.#late.take();
    const items = new Set(late.map(({ item }) => item));
    let group: ReadonlyMap<string, DirtyItem> = new Map();
    let endWait = (): void => undefined;
    let deadline = Promise.resolve();
    try {
      const first = late.flatMap(({ reading }) => reading ?? []);
      for (const { error } of late) if (error !== undefined) throw givenBack(first, error);
      const batch = await collectBatch({
        first,
        signal,
        take: async (limit) => {
          group = await this.#next(limit, { also, signal });
          for (const item of group.values()) items.add(item);
          this.#reading = items.size;
          endWait();
          const { promise, resolve } = Promise.withResolvers<void>();
          endWait = clock.after(this.#patienceMs, resolve);
          deadline = promise;
          return [...group.keys()];
        },
        read: async (path) => {
          const item = group.get(path);
          const reading = this.#options.read(path);
          if (!item) return reading;
          const inTime = await this.#late.inTime(item, { reading, deadline });
          if (!inTime) items.delete(item);
          return inTime;
        },
      });
      return { items: [...items], batch };
    } catch (error) {
      dirty.putBack(items, AGAIN_MS);
      throw error;
    } finally {
      endWait();
      this.#reading = 0;
      for (const { behind } of late) dirty.putBack(behind, AGAIN_MS);
    }
  }

  /** The readings of `items` are durable, but for those that failed. What changed meanwhile is dirty again. */
  settle(
    items: readonly DirtyItem[],
    result: {
      readonly again: readonly string[];
      readonly failed: ReadonlyMap<string, unknown>;
    },
  ): void {
    const { dirty } = this.#options;
    const { again, failed } = result;
    dirty.settled(items.filter(({ path }) => !failed.has(path)));
    dirty.putBack(
      items.filter(({ path }) => failed.has(path)),
      AGAIN_MS,
    );
    for (const path of again) if (!failed.has(path)) dirty.hint(path);
  }

  /** The next paths to be read; folders are looked through for theirs on the way. */
  async #next(limit: number, { also, signal }: TakeOptions): Promise<Map<string, DirtyItem>> {
    for (;;) {
      const some = this.#options.dirty.take(limit, { also });
      const paths = some.filter((item) => item.kind === "path" && !this.#late.holds(item));
      for (const item of some) {
        if (item.kind === "tree") await this.#look(item, signal);
      }
      if (paths.length > 0 || some.length === 0)
        return new Map(paths.map((item) => [item.path, item]));
    }
  }

  /** Finds out what changed below a folder. */
  async #look(item: DirtyItem, signal: AbortSignal): Promise<void> {
    const { dirty, scan, scans } = this.#options;
    try {
      if (item.path === "") {
        await scans.fresh(signal);
      } else {
        const found = ({
          gone,
          changed,
        }: {
          gone: readonly string[];
          changed: readonly string[];
        }): void => dirty.found([...gone, ...changed]);
        const { outcome } = await scan({ path: item.path, signal, onBatch: found });
        // The whole tree is in doubt then; it is looked at as a whole.
        if (outcome !== "complete") scans.request();
      }
      dirty.settled([item]);
    } catch (error) {
      dirty.putBack([item], AGAIN_MS);
      throw error;
    }
  }
}

function givenBack(readings: readonly Reading[], error: unknown): unknown {
  dispose(readings);
  return error;
}
