import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { lastSyncFile } from "../../src/backup/commit/last-sync.ts";
import type { ReplicatorOptions } from "../../src/backup/commit/replicator-options.ts";
import type { ReplicatorEvent } from "../../src/backup/commit/replicator-status.ts";
import { Replicator } from "../../src/backup/commit/replicator.ts";
import { keys } from "../../src/backup/format/format.ts";
import { Index } from "../../src/backup/index.ts";
import { Checkpoints } from "../../src/backup/keep/checkpoints.ts";
import { DirtySet } from "../../src/backup/notice/dirty.ts";
import { createIgnore } from "../../src/backup/notice/ignore.ts";
import { scan } from "../../src/backup/notice/scan.ts";
import { ReadContext } from "../../src/backup/read/read-context.ts";
import { readPath } from "../../src/backup/read/reader.ts";
import type { Reading } from "../../src/backup/read/reading.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { CountingStore } from "../../src/store/counting.ts";
import { probeConditionalPut } from "../../src/store/probe.ts";
import type { Store } from "../../src/store/store.ts";
import { Root } from "../../src/volume/root.ts";
import { capturedLog } from "./captured-log.ts";

export interface ReplicaOptions extends Partial<ReplicatorOptions> {
  readonly store: Store;
  readonly clock: Clock;
  /** Absolute path of the volume. */
  readonly volume: string;
  /** Stands between the replicator and the reader. */
  readonly wrapRead?: (
    read: (path: string) => Promise<Reading>,
  ) => (path: string) => Promise<Reading>;
}

/** A replicator of a real folder, put together as the machine does it, without a watcher. Scans run in the main thread. */
export function replica(options: ReplicaOptions) {
  const { clock, volume } = options;
  mkdirSync(join(volume, ".sidecar"), { recursive: true });
  const log = capturedLog();
  const root = new Root(volume);
  const indexPath = join(volume, ".sidecar", "index.sqlite");
  const index = new Index(indexPath);
  const store = new CountingStore(options.store);
  const events: ReplicatorEvent[] = [];
  const dirty = new DirtySet({ clock, onDue: () => replicator.wake() });
  const ignore = createIgnore();
  const context = new ReadContext({ root, index, ignore, clock });
  const snapshot = (): Index => new Index(indexPath, { readonly: true }).freeze();
  const read = (path: string): Promise<Reading> => readPath(path, context);
  const replicator: Replicator = new Replicator({
    index,
    dirty,
    read: options.wrapRead?.(read) ?? read,
    isDatabase: (path) => context.isDatabase(path),
    onEnding: () => context[Symbol.dispose](),
    scan: async (request) =>
      scan(root, {
        index,
        ignore,
        clock,
        onBatch: request.onBatch,
        ...(request.path === undefined ? {} : { path: request.path }),
      }),
    log,
    user: "user-1",
    machine: "machine-1",
    fence: "on",
    probe: (signal) => probeConditionalPut(store, keys.probe, { signal, clock }),
    lastSync: lastSyncFile(root, log),
    checkpoints: new Checkpoints({
      store,
      index,
      snapshot,
      clock,
      log,
      user: "user-1",
      machine: "machine-1",
    }),
    onRecorded: () => context.startBatch(),
    onEvent: (event) => events.push(event),
    counts: () => store.counts,
    random: () => 0.5,
    ...options,
    store,
  });
  return {
    replicator,
    index,
    snapshot,
    root,
    dirty,
    events,
    log,
    types: () => events.map(({ type }) => type),
    [Symbol.dispose]() {
      dirty.close();
      context[Symbol.dispose]();
      index[Symbol.dispose]();
      root[Symbol.dispose]();
    },
  };
}
