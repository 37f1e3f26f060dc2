import type { DirtyItem } from "../notice/dirty.ts";
import type { ScanResult } from "../notice/scan.ts";
import type { ScanRequest } from "../notice/scanner.ts";
import type { Reading } from "../read/reading.ts";
import { collectBatch, type Batch } from "./batch.ts";
import type { Scans } from "./scans.ts";

/** A path that keeps changing, or was passed by others, is looked at again after so long. */
const AGAIN_MS = 300;

/** What changed and is not durable yet: see DirtySet. */
export interface DirtyPaths {
  readonly size: number;
  readonly lagMs: number;
  hint(path: string, kind?: "path" | "tree"): void;
  found(paths: Iterable<string>): void;
  /** What is due, the most precious first; with `all` whatever waits. */
  take(limit: number, options?: { readonly all?: boolean }): readonly DirtyItem[];
  settled(items: Iterable<DirtyItem>): void;
  putBack(items: Iterable<DirtyItem>, delayMs?: number): void;
  nextDueMs(): number | undefined;
}

export interface IntakeOptions {
  readonly dirty: DirtyPaths;
  readonly read: (path: string) => Promise<Reading>;
  readonly scan: (request: ScanRequest) => Promise<ScanResult>;
  readonly scans: Scans;
}

/** What was taken from the dirty paths and read. */
export interface Taken {
  readonly items: readonly DirtyItem[];
  readonly batch: Batch;
}

/** Turns dirty paths and folders into readings, and tells them off when these are durable. */
export class Intake {
  readonly #options: IntakeOptions;
  #reading = 0;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** How many paths are being read. */
  get reading(): number {
    return this.#reading;
  }

  /** Reads what is due, as much as a commit can hold. On a throw everything is dirty as before. */
  async take(options: { readonly all: boolean; readonly signal: AbortSignal }): Promise<Taken> {
    const { dirty, read } = this.#options;
    const items: DirtyItem[] = [];
    try {
      const batch = await collectBatch({
        read,
        signal: options.signal,
        take: async (limit) => {
          for (;;) {
            const some = dirty.take(limit, { all: options.all });
            const paths = some.filter(({ kind }) => kind === "path");
            items.push(...paths);
            this.#reading = items.length;
            for (const item of some) {
              if (item.kind === "tree") await this.#look(item, options.signal);
            }
            if (paths.length > 0 || some.length === 0) return paths.map(({ path }) => path);
          }
        },
      });
      return { items, batch };
    } catch (error) {
      dirty.putBack(items, AGAIN_MS);
      throw error;
    } finally {
      this.#reading = 0;
    }
  }

  /** The readings of `items` are durable, but for the paths in `again`. */
  settle(
    items: readonly DirtyItem[],
    result: {
      readonly again: readonly string[];
      readonly failures: readonly { readonly path: string }[];
    },
  ): void {
    const { dirty } = this.#options;
    const failed = new Set(result.failures.map(({ path }) => path));
    const notYet = items.filter(({ path }) => failed.has(path));
    const kept = new Set(notYet);
    dirty.settled(items.filter((item) => !kept.has(item)));
    dirty.putBack(notYet, AGAIN_MS);
    for (const path of result.again) if (!failed.has(path)) dirty.hint(path);
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
