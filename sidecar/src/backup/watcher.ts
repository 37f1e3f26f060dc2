import { lstatSync } from "node:fs";

import { watch, type FSWatcher } from "chokidar";

import type { Ignore } from "./ignore.ts";
import { databaseOf } from "./stamp.ts";

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
 * One inotify watch for each folder. Links are not followed.
 */
export class Watcher {
  readonly #options: WatcherOptions;
  #watcher: FSWatcher | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  get isWatching(): boolean {
    return this.#watcher !== undefined;
  }

  /** Resolves when changes are being seen, or when `onLost` was told that they cannot be. Can be called again after that. */
  async start(): Promise<void> {
    if (this.#watcher) return;
    const { path } = this.#options;
    // Only the events as they come from the kernel are used. To make up its own, the library would list the whole volume,
    // keep every entry in memory (95 MB for 100,000 files) and look at each one that changes.
    const watcher = watch(path, {
      backend: "native-recursive",
      ignored: (other) => other !== path,
      ignoreInitial: true,
      followSymlinks: false,
      atomic: false,
    });
    this.#watcher = watcher;
    const { promise, resolve } = Promise.withResolvers<void>();
    watcher.on("raw", (event, name) => this.#onEvent(event, name));
    watcher.on("error", (error) => {
      if (this.#watcher !== watcher) return;
      this.#watcher = undefined;
      void watcher.close();
      this.#options.onLost("failed", error instanceof Error ? error.message : String(error));
      resolve();
    });
    watcher.on("ready", resolve);
    await promise;
  }

  /** Resolves when no more hints come. */
  async stop(): Promise<void> {
    const watcher = this.#watcher;
    this.#watcher = undefined;
    await watcher?.close();
  }

  #onEvent(event: string, name: unknown): void {
    if (!this.#watcher) return;
    if (typeof name !== "string" || name === "") {
      this.#options.onLost("overflow", "the kernel's queue of events was full");
      return;
    }
    const { ignore, isDatabase, onDirty } = this.#options;
    const isFolder = event === "rename" && this.#isFolder(name);
    if (ignore().covers(name, isFolder)) return;
    if (isFolder) {
      onDirty(name, "tree");
      return;
    }
    const database = databaseOf(name);
    if (database !== undefined && isDatabase?.(database)) {
      if (!name.endsWith("-shm")) onDirty(database, "path");
      return;
    }
    onDirty(name, "path");
    // Perhaps a database that nobody knows yet.
    if (database !== undefined && !name.endsWith("-shm")) onDirty(database, "path");
  }

  /** A folder that came by being moved brings entries that nobody tells us of. */
  #isFolder(name: string): boolean {
    const { path } = this.#options;
    try {
      return lstatSync(`${path}/${name}`, { throwIfNoEntry: false })?.isDirectory() ?? false;
    } catch {
      return false;
    }
  }
}
