import type { Clock } from "../../src/platform/clock.ts";

interface Timer {
  readonly at: number;
  readonly fire: () => void;
}

/** Time that stands still until `advance` is called. Timers fire in order, and what they set off runs before the next. */
export class ManualClock implements Clock {
  #wall: number;
  #mono = 0;
  #timers: Timer[] = [];

  constructor(wall = Date.UTC(2026, 10, 20)) {
    this.#wall = wall;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#mono;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason as Error);
      };
      const cancel = this.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#mono + ms, fire: callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Moves both clocks on by `ms`, firing what is due on the way. */
  async advance(ms: number): Promise<void> {
    const end = this.#mono + ms;
    for (;;) {
      await settle();
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#move(due.at - this.#mono);
      due.fire();
    }
    this.#move(end - this.#mono);
    await settle();
  }

  /** The wall clock alone jumps: a suspend, or a correction. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  #move(ms: number): void {
    this.#mono += ms;
    this.#wall += ms;
  }
}

/** Lets promise chains run to where they wait again. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}
