import { syncFileSystemNow } from "./ns-times.ts";
import type { SyncAnswer } from "./sync-file-system.ts";

declare const self: Worker;

self.addEventListener("message", (event: MessageEvent<number>) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  self.postMessage(answer(event.data));
});

function answer(fd: number): SyncAnswer {
  try {
    syncFileSystemNow(fd);
    return {};
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === undefined ? { message } : { code, message };
  }
}
