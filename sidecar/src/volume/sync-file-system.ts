import { closeSync, constants, openSync } from "node:fs";

import type { Dir } from "./dir.ts";
import { volumeError } from "./volume-error.ts";

/** What the worker answers: nothing on success. */
export interface SyncAnswer {
  readonly code?: string;
  readonly message?: string;
}

/**
 * Makes everything written so far to the file system of `dir` durable: far cheaper than an fsync per file after a
 * restore. It can take minutes, so a thread of its own waits for the disk. Throws VolumeError.
 */
export async function syncFileSystem(dir: Dir): Promise<void> {
  const fd = openSync(dir.self, constants.O_RDONLY | constants.O_DIRECTORY);
  const worker = new Worker(new URL("./sync-file-system-worker.ts", import.meta.url));
  try {
    const answer = await new Promise<SyncAnswer>((resolve, reject) => {
      worker.addEventListener("message", (event: MessageEvent<SyncAnswer>) => resolve(event.data));
      worker.addEventListener("error", (event) => {
        reject(new Error(`Cannot sync "${dir.path}": the thread failed: ${event.message}`));
      });
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
      worker.postMessage(fd);
    });
    if (answer.message !== undefined) {
      throw Object.assign(new Error(answer.message), { code: answer.code });
    }
  } catch (error) {
    throw volumeError(error, "sync", dir.path);
  } finally {
    worker.terminate();
    closeSync(fd);
  }
}
