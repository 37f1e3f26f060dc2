import { parentPort, workerData } from "node:worker_threads";

import { systemClock } from "../../platform/clock.ts";
import { Root } from "../../volume/root.ts";
import { isDamagedIndex } from "../index-schema.ts";
import { Index } from "../index.ts";
import { createIgnore, readRules } from "./ignore.ts";
import { scan, type ScanBatch, type ScanResult } from "./scan.ts";

/** What the Worker is started with: scan this folder ("" is the whole volume). `cancel` turns from 0 to 1 when it shall end. */
export interface ScanOrder {
  readonly volume: string;
  readonly index: string;
  readonly path: string;
  readonly cancel: Int32Array;
}

export type ScanReport =
  | ({ readonly kind: "batch" } & ScanBatch)
  | { readonly kind: "progress"; readonly entries: number }
  | { readonly kind: "result"; readonly result: ScanResult }
  | { readonly kind: "failed"; readonly message: string; readonly damagedIndex: boolean };

try {
  report({ kind: "result", result: run(workerData as ScanOrder) });
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  report({ kind: "failed", message, damagedIndex: isDamagedIndex(error) });
}

function run(order: ScanOrder): ScanResult {
  using root = new Root(order.volume);
  using index = new Index(order.index, { readonly: true });
  return scan(root, {
    index,
    ignore: createIgnore(readRules(root)),
    clock: systemClock,
    path: order.path,
    cancelled: () => Atomics.load(order.cancel, 0) !== 0,
    onBatch: (batch) => report({ kind: "batch", ...batch }),
    onProgress: (entries) => report({ kind: "progress", entries }),
  });
}

function report(message: ScanReport): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- between threads there are no origins
  parentPort?.postMessage(message);
}
