import { closeSync, fsync, writeSync } from "node:fs";
import { promisify } from "node:util";

import type { Logger } from "../../platform/log.ts";
import { TEMP_PREFIX } from "../../volume/atomic.ts";
import type { Dir } from "../../volume/dir.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { LAST_SYNC } from "../notice/ignore.ts";

/** Always the same one: a machine that is killed often must not litter the volume. */
const TEMP = `${TEMP_PREFIX}last-sync`;

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
    top.unlink(TEMP);
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
  const fd = top.create(TEMP, 0o644);
  try {
    writeSync(fd, text);
    await fsyncLater(fd);
  } finally {
    closeSync(fd);
  }
  top.rename(TEMP, top, LAST_SYNC);
}
