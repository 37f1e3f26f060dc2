import { readFileSync } from "node:fs";

import type { Clock } from "../platform/clock.ts";

/** The kernel counts before the dying process has let go of its memory, which can take this long. */
const WINDOW_MS = 10_000;

/** Tells whether the kernel has just killed for want of memory. The platform reports it only for its own main process. */
export class OomWatch {
  readonly #clock: Clock;
  readonly #count: () => number | undefined;
  #samples: { readonly at: number; readonly count: number }[] = [];

  constructor(clock: Clock, count = oomKills) {
    this.#clock = clock;
    this.#count = count;
  }

  /** To be called about once a second; keeps what the count was some seconds ago. */
  sample(): void {
    const count = this.#count();
    if (count === undefined) return;
    const at = this.#clock.monotonic();
    this.#samples.push({ at, count });
    // The oldest kept is the newest that is older than the window, so that there is always one to compare with.
    while ((this.#samples[1]?.at ?? at) <= at - WINDOW_MS) this.#samples.shift();
  }

  /** True if the kernel killed a process of this machine within the last seconds. */
  justKilled(): boolean {
    const before = this.#samples[0];
    const count = this.#count();
    return before !== undefined && count !== undefined && count > before.count;
  }
}

/** How often the kernel has killed for want of memory since boot; undefined where it does not say. */
function oomKills(): number | undefined {
  try {
    const count = readFileSync("/proc/vmstat", "latin1").match(/^oom_kill (\d+)$/m)?.[1];
    return count === undefined ? undefined : Number(count);
  } catch {
    return undefined;
  }
}
