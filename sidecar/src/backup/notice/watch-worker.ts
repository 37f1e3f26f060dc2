import { lstatSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

import { watch } from "chokidar";

/** What the Worker is started with. */
export interface WatchOrder {
  /** Absolute path of the volume, without links. */
  readonly path: string;
}

export type WatchReport =
  | { readonly kind: "watching" }
  /** Names below the volume, each once. `folders`: those that came as folders, by being made or moved. */
  | {
      readonly kind: "seen";
      readonly names: readonly string[];
      readonly folders: readonly string[];
    }
  | { readonly kind: "overflow" }
  /** Nothing more will come. */
  | { readonly kind: "failed"; readonly message: string };

/** As deep as the volume is walked. Names from deeper down are never backed up, and each costs as much as it is long. */
const MAX_DEPTH = 256;
/** Names that wait for one message. */
const BATCH = 1_000;

const { path } = workerData as WatchOrder;
let names = new Set<string>();
let folders = new Set<string>();

// Only the events as they come from the kernel are used. To make up its own, the library would list the whole volume, keep
// every entry in memory (95 MB for 100,000 files) and look at each one that changes.
const watcher = watch(path, {
  backend: "native-recursive",
  ignored: (other) => other !== path,
  ignoreInitial: true,
  followSymlinks: false,
  atomic: false,
});
watcher.on("raw", (event: string, name: unknown) => {
  if (typeof name !== "string" || name === "") report({ kind: "overflow" });
  else if (isTooDeep(name)) return;
  else if (event === "rename" && isFolder(name)) add(folders, name);
  else add(names, name);
});
watcher.on("error", (error) => {
  report({ kind: "failed", message: error instanceof Error ? error.message : String(error) });
  void watcher.close();
});
watcher.on("ready", () => report({ kind: "watching" }));

function add(to: Set<string>, name: string): void {
  // One message for all that the kernel had for us, not one for each.
  if (names.size + folders.size === 0) setImmediate(flush);
  to.add(name);
  if (to.size >= BATCH) flush();
}

function flush(): void {
  if (names.size + folders.size === 0) return;
  report({ kind: "seen", names: [...names], folders: [...folders] });
  names = new Set();
  folders = new Set();
}

function isTooDeep(name: string): boolean {
  return name.split("/", MAX_DEPTH + 1).length > MAX_DEPTH;
}

/** Whether it still is one; a link to one is none. */
function isFolder(name: string): boolean {
  try {
    return lstatSync(`${path}/${name}`, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch {
    return false;
  }
}

function report(message: WatchReport): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- between threads there are no origins
  parentPort?.postMessage(message);
}
