import { closeSync, fsync, writeSync } from "node:fs";
import { promisify } from "node:util";

import type { Logger } from "../../platform/log.ts";
import type { Dir } from "../../volume/dir.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { LAST_SYNC, LAST_SYNC_TEMP } from "../notice/ignore.ts";

const fsyncLater = promisify(fsync);

export interface LastSync {
  /** Resolves when the file says so, or cannot be written: nothing depends on it. */
  write(commit: { readonly position: number; readonly time: number }): Promise<void>;
}

/** Keeps the time of the last commit in a file that anybody can look at. */
export function lastSyncFile(root: Root, log: Logger): LastSync {
  let failing = false;
  return {
    async write({ position, time }) {
      try {
        using top = root.dir("");
        await replace(top, `${new Date(time).toISOString()} position ${position}\n`);
        failing = false;
      } catch (error) {
        if (!failing) log.warn({ error }, "Cannot write the time of the last commit");
        failing = true;
      }
    },
  };
}

async function replace(top: Dir, text: string): Promise<void> {
  try {
    top.unlink(LAST_SYNC_TEMP);
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
  const fd = top.create(LAST_SYNC_TEMP, 0o644);
  try {
    writeSync(fd, text);
    await fsyncLater(fd);
  } finally {
    closeSync(fd);
  }
  top.rename(LAST_SYNC_TEMP, top, LAST_SYNC);
}
