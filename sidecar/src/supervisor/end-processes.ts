import type { Clock } from "../platform/clock.ts";
import { signalProcess, type ProcessInfo } from "./process-list.ts";

const LOOK_MS = 20;

export interface EndOptions {
  readonly clock: Clock;
  /** From SIGTERM to SIGKILL. */
  readonly graceMs: number;
  /** When to give up on what even SIGKILL does not end (it sits in the kernel). At least `graceMs`. */
  readonly limitMs: number;
  /** Aborting it ends the grace at once. */
  readonly hurry?: AbortSignal;
}

/**
 * Ends every process that `find` returns, looking again until it returns none: what appears meanwhile is asked too, and
 * killed once the grace is over. Returns those that are still there at the limit.
 */
export async function endProcesses(
  find: () => readonly ProcessInfo[],
  options: EndOptions,
): Promise<readonly ProcessInfo[]> {
  const { clock, graceMs, limitMs, hurry } = options;
  const begun = clock.monotonic();
  const asked = new Set<number>();
  for (;;) {
    const found = find();
    if (found.length === 0) return [];
    const elapsed = clock.monotonic() - begun;
    for (const info of found) {
      if (elapsed >= graceMs || hurry?.aborted) signalProcess(info, "SIGKILL");
      else if (!asked.has(info.pid)) ask(info);
      asked.add(info.pid);
    }
    if (elapsed >= limitMs) return found;
    await clock.sleep(LOOK_MS);
  }
}

function ask(info: ProcessInfo): void {
  signalProcess(info, "SIGTERM");
  // A process that was stopped cannot act on the first one before this.
  signalProcess(info, "SIGCONT");
}
