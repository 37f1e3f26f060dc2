import type { Clock } from "../../platform/clock.ts";

/** Watching that held for so long has got over what ended it before. */
const STEADY_MS = 60_000;
const STEP_MS = 1_000;
const MAX_MS = 5 * 60_000;

/**
 * When to watch again after it failed: at once, and then ever more rarely. Each try walks all folders, and what it fails
 * for (too many of them, or too deep) is often still there.
 */
export class Rewatch {
  readonly #clock: Clock;
  #failures = 0;
  #begunAt = 0;
  #nextAt = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** True if it is time to try; then it counts as begun. */
  begin(): boolean {
    const now = this.#clock.monotonic();
    if (now < this.#nextAt) return false;
    this.#begunAt = now;
    return true;
  }

  /** Watching failed. Returns true if that is news, and not one more failure of the same outage. */
  failed(): boolean {
    const now = this.#clock.monotonic();
    if (now - this.#begunAt >= STEADY_MS) this.#failures = 0;
    this.#failures += 1;
    this.#nextAt = now + Math.min(MAX_MS, STEP_MS * (2 ** (this.#failures - 1) - 1));
    return this.#failures === 1;
  }
}
