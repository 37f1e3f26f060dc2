/** Lets one at a time have what several want, in the order in which they asked. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** The answer of `work`, which begins when all who asked before have ended. Throws the signal's reason where that aborts while it waits. */
  async take<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    const before = this.#last;
    const { promise: done, resolve: end } = Promise.withResolvers<void>();
    // Who gives up waiting keeps the place of those behind.
    this.#last = Promise.allSettled([before, done]);
    try {
      await unlessAborted(before, signal);
      return await work();
    } finally {
      end();
    }
  }
}

async function unlessAborted(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([work, aborted.promise]);
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
