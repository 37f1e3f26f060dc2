import type { Clock } from "../platform/clock.ts";

export interface FailureLimitOptions {
  readonly clock: Clock;
  /** Failures that an address has free in a window; default 20. */
  readonly limit?: number;
  /** Default one minute. */
  readonly windowMs?: number;
}

/** Addresses remembered at once; the one quiet the longest is forgotten first. */
const MAX_ADDRESSES = 10_000;

/** Counts failed authentications per address, in windows that begin with the first failure. */
export class FailureLimit {
  readonly #clock: Clock;
  readonly #limit: number;
  readonly #windowMs: number;
  readonly #windows = new Map<string, { count: number; readonly endsAt: number }>();

  constructor({ clock, limit = 20, windowMs = 60_000 }: FailureLimitOptions) {
    this.#clock = clock;
    this.#limit = limit;
    this.#windowMs = windowMs;
  }

  /** Counts one failure. Returns the milliseconds until the address is free again if it has failed too often, else undefined. */
  add(address: string): number | undefined {
    const now = this.#clock.monotonic();
    const known = this.#windows.get(address);
    const window = known && known.endsAt > now ? known : { count: 0, endsAt: now + this.#windowMs };
    window.count += 1;
    // Back in as the youngest.
    this.#windows.delete(address);
    this.#windows.set(address, window);
    if (this.#windows.size > MAX_ADDRESSES) {
      for (const oldest of this.#windows.keys()) {
        this.#windows.delete(oldest);
        break;
      }
    }
    return window.count > this.#limit ? window.endsAt - now : undefined;
  }
}
