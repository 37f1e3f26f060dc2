import { Worker } from "node:worker_threads";

import { databaseOf } from "../stamp.ts";
import type { Ignore } from "./ignore.ts";
import type { WatchOrder, WatchReport } from "./watch-worker.ts";

export interface WatcherOptions {
  /** Absolute path of the volume, without links. */
  readonly path: string;
  /** The rules in force. */
  readonly ignore: () => Ignore;
  /** True if the path is known to be a database: then its log and journal are its own changes. */
  readonly isDatabase?: (path: string) => boolean;
  /** Something happened at `path`, or, for "tree", perhaps anywhere below it. */
  readonly onDirty: (path: string, kind: "path" | "tree") => void;
  /** Events were lost (`overflow`: watching goes on), or watching ended (`failed`): only a scan knows what changed. */
  readonly onLost: (kind: "overflow" | "failed", reason: string) => void;
}

/**
 * Hints from the kernel about what changes on the volume. They may be late, doubled or missing: the truth is the scan.
 * One inotify watch for each folder. Links are not followed. The watching itself is done in a Worker: setting up 1,000
 * folders takes 100 ms, and the kernel's queue must be drained whatever else goes on.
 */
export class Watcher {
  readonly #options: WatcherOptions;
  #worker: Worker | undefined;
  #started: Promise<void> | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  get isWatching(): boolean {
    return this.#worker !== undefined;
  }

  /** Resolves when changes are being seen, or when `onLost` was told that they cannot be. Can be called again after that. */
  async start(): Promise<void> {
    if (!this.#worker) this.#started = this.#start();
    await this.#started;
  }

  /** Resolves when no more hints come. */
  async stop(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #start(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const order: WatchOrder = { path: this.#options.path };
    const worker = new Worker(new URL("./watch-worker.ts", import.meta.url), { workerData: order });
    this.#worker = worker;
    const fail = (reason: string): void => {
      resolve();
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      void worker.terminate();
      this.#options.onLost("failed", reason);
    };
    worker.on("message", (report: WatchReport) => {
      if (this.#worker !== worker) return;
      if (report.kind === "watching") resolve();
      else if (report.kind === "failed") fail(report.message);
      else if (report.kind === "seen") this.#onSeen(report);
      else this.#options.onLost("overflow", "the kernel's queue of events was full");
    });
    worker.on("error", (error) => fail(error instanceof Error ? error.message : String(error)));
    worker.on("exit", () => fail("the Worker that watches ended"));
    return promise;
  }

  #onSeen({ names, folders }: Extract<WatchReport, { kind: "seen" }>): void {
    const { ignore, isDatabase, onDirty } = this.#options;
    const rules = ignore();
    for (const name of folders) if (!rules.covers(name, true)) onDirty(name, "tree");
    for (const name of names) {
      if (rules.covers(name, false)) continue;
      const database = databaseOf(name);
      if (database === undefined) {
        onDirty(name, "path");
        continue;
      }
      const isLog = !name.endsWith("-shm");
      const isKnown = isDatabase?.(database) ?? false;
      // Perhaps a database that nobody knows yet.
      if (isLog) onDirty(database, "path");
      if (!isKnown) onDirty(name, "path");
    }
  }
}
