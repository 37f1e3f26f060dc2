import type { Wanted } from "../notice/dirty.ts";

interface Waiter {
  /** What changed later is not waited for. */
  readonly since: number;
  /** Paths that could not be sent meanwhile: tried again, but not waited for. */
  readonly failed: Set<string>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Those who wait until everything that had changed by a moment is durable. */
export class Flushes {
  #waiting: Waiter[] = [];

  /** What somebody waits for; undefined where nobody does. */
  get wanted(): Wanted | undefined {
    const waiters = this.#waiting;
    if (waiters.length === 0) return undefined;
    return (path, since) => waiters.some((waiter) => isWanted(waiter, path, since));
  }

  /** Resolves once `advance` finds nothing that had changed by `since`. Rejects with the signal's reason, or as `fail` says. */
  async wait(since: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { since, failed: new Set<string>(), resolve, reject };
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(waiter);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
    }
  }

  /** These paths could not be sent. */
  excuse(paths: Iterable<string>): void {
    for (const path of paths) for (const { failed } of this.#waiting) failed.add(path);
  }

  /** Lets those go for whom nothing is owed any more. */
  advance(owes: (wanted: Wanted) => boolean): void {
    for (const waiter of this.#waiting) {
      if (!owes((path, since) => isWanted(waiter, path, since))) waiter.resolve();
    }
  }

  fail(error: Error): void {
    for (const waiter of this.#waiting) waiter.reject(error);
  }
}

function isWanted(waiter: Waiter, path: string, since: number): boolean {
  return since <= waiter.since && !waiter.failed.has(path);
}
