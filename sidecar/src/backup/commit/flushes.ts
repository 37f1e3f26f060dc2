/** Those who wait until everything that is dirty by now is durable. */
export class Flushes {
  #waiting: { left: number; readonly resolve: () => void; readonly reject: (e: Error) => void }[] =
    [];

  get pending(): boolean {
    return this.#waiting.length > 0;
  }

  /** Resolves once `paths` more paths went through, or none is left. Rejects with the signal's reason, or as `fail` says. */
  async wait(paths: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { left: paths, resolve, reject };
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

  /** So many paths are durable now, or turned out to need nothing. */
  advance(paths: number): void {
    for (const waiter of this.#waiting) {
      waiter.left -= paths;
      if (waiter.left <= 0) waiter.resolve();
    }
  }

  /** Nothing is dirty any more. */
  finish(): void {
    for (const waiter of this.#waiting) waiter.resolve();
  }

  fail(error: Error): void {
    for (const waiter of this.#waiting) waiter.reject(error);
  }
}
