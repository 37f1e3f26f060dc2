import { Worker } from "node:worker_threads";

import { IndexError } from "../index-schema.ts";
import type { ScanOrder, ScanReport } from "./scan-worker.ts";
import type { ScanBatch, ScanResult } from "./scan.ts";

export interface ScannerOptions {
  /** Absolute path of the volume. */
  readonly volume: string;
  /** Absolute path of the index; the Worker opens it for itself, for reading only. */
  readonly index: string;
}

export interface ScanRequest {
  /** The folder to scan, below the root; the whole volume by default. */
  readonly path?: string;
  /** Ends the scan early: its outcome is then `cancelled`. */
  readonly signal?: AbortSignal;
  readonly onBatch: (batch: ScanBatch) => void;
  readonly onProgress?: (entries: number) => void;
}

/** Runs scans in a Worker, one after the other, so that the main loop goes on meanwhile. Between scans there is no Worker, and none of its memory. */
export class Scanner {
  readonly #options: ScannerOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ScannerOptions) {
    this.#options = options;
  }

  /** Resolves when the scan is over, however it ended. Rejects where the Worker or the index cannot be used. */
  scan(request: ScanRequest): Promise<ScanResult> {
    const next = this.#last.then(() => this.#run(request));
    this.#last = next.catch(() => undefined);
    return next;
  }

  /** Resolves when no scan is running any more; abort their signals to be quick. */
  async close(): Promise<void> {
    await this.#last;
  }

  async #run(request: ScanRequest): Promise<ScanResult> {
    const { promise, resolve, reject } = Promise.withResolvers<ScanResult>();
    const { signal } = request;
    const cancel = new Int32Array(new SharedArrayBuffer(4));
    const onAbort = (): void => void Atomics.store(cancel, 0, 1);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    const order: ScanOrder = { ...this.#options, path: request.path ?? "", cancel };
    const worker = new Worker(new URL("./scan-worker.ts", import.meta.url), { workerData: order });
    worker.on("message", (report: ScanReport) => {
      if (report.kind === "batch") request.onBatch(report);
      else if (report.kind === "progress") request.onProgress?.(report.entries);
      else if (report.kind === "result") resolve(report.result);
      else reject(failure(report));
    });
    worker.on("error", (error) =>
      reject(new Error("Cannot scan the volume: its Worker failed", { cause: error })),
    );
    // Says nothing where a result or failure came before.
    worker.on("exit", () => reject(new Error("Cannot scan the volume: its Worker ended")));
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      await worker.terminate();
    }
  }
}

function failure({ message, damagedIndex }: Extract<ScanReport, { kind: "failed" }>): Error {
  const text = `Cannot scan the volume: ${message}`;
  return damagedIndex ? new IndexError("corrupt", text) : new Error(text);
}
