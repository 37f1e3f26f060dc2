import type { Clock } from "../../platform/clock.ts";

/** Ends a wait early. A ring that nobody waits for is kept for the next wait. */
export class Bell {
  readonly #clock: Clock;
  #rung = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves after `ms` (undefined: never by itself) or at a ring, at once if one was kept. Rejects with the signal's reason. One waiter at a time. */
  async wait(ms: number | undefined, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#wake = resolve;
    const cancel = ms === undefined ? undefined : this.#clock.after(ms, resolve);
    if (this.#rung) resolve();
    try {
      await promise;
    } finally {
      this.#rung = false;
      this.#wake = undefined;
      cancel?.();
      signal.removeEventListener("abort", onAbort);
    }
  }
}
