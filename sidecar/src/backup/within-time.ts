import type { Clock } from "../platform/clock.ts";
import { StoreError } from "../store/store.ts";

export interface WithinTimeOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly limitMs: number;
}

/**
 * The answer of a store to `work`. Throws StoreError `unavailable` where it does not come in time, and the signal's reason
 * where that aborts first: also of a store that hangs and does not listen to the signal it is given.
 */
export async function withinTime<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { clock, signal, limitMs }: WithinTimeOptions,
): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  const cancel = clock.after(limitMs, () =>
    late.abort(
      new StoreError("unavailable", `Cannot reach the store: no answer for ${limitMs} ms`),
    ),
  );
  const either = AbortSignal.any([signal, late.signal]);
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(either.reason as Error);
  either.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work(either), aborted.promise]);
  } catch (error) {
    throw late.signal.aborted && !signal.aborted ? late.signal.reason : error;
  } finally {
    cancel();
    // A listener that stays keeps the race alive, and with it the answer, for as long as the caller's signal lives.
    either.removeEventListener("abort", onAbort);
  }
}
