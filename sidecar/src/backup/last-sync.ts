import type { Logger } from "../platform/log.ts";
import { writeFileAtomic } from "../volume/atomic.ts";
import type { Root } from "../volume/root.ts";

/** At the top of the volume, for people; never backed up. */
const NAME = ".last-sync";

export interface LastSync {
  /** Resolves when the file says so, or cannot be written: nothing depends on it. */
  write(commit: { readonly position: number; readonly time: number }): Promise<void>;
}

/** Keeps the time of the last commit in a file that anybody can look at. */
export function lastSyncFile(root: Root, log: Logger): LastSync {
  let failing = false;
  return {
    async write({ position, time }) {
      const text = `${new Date(time).toISOString()} position ${position}\n`;
      try {
        using place = root.place(NAME);
        await writeFileAtomic(place, new TextEncoder().encode(text));
        failing = false;
      } catch (error) {
        if (!failing) log.warn({ error }, "Cannot write the time of the last commit");
        failing = true;
      }
    },
  };
}
