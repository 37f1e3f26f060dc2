import type { Clock } from "../platform/clock.ts";
import { StoreError } from "../store/store.ts";

export interface WithinTimeOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly limitMs: number;
  /** From when its signal aborts, its limit holds instead: reckoned from the start of the work. */
  readonly hurry?: { readonly signal: AbortSignal; readonly limitMs: number };
}

/**
 * The answer of a store to `work`. Throws StoreError `unavailable` where it does not come in time, and the signal's reason
 * where that aborts first: also of a store that hangs and does not listen to the signal it is given.
 */
export async function withinTime<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { clock, signal, limitMs, hurry }: WithinTimeOptions,
): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  const start = clock.monotonic();
  const limit = (ms: number): (() => void) =>
    clock.after(Math.max(0, start + ms - clock.monotonic()), () =>
      late.abort(new StoreError("unavailable", `Cannot reach the store: no answer for ${ms} ms`)),
    );
  let cancel = limit(hurry?.signal.aborted ? Math.min(limitMs, hurry.limitMs) : limitMs);
  const onHurry = (): void => {
    cancel();
    cancel = limit(Math.min(limitMs, hurry?.limitMs ?? limitMs));
  };
  hurry?.signal.addEventListener("abort", onHurry, { once: true });
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
    hurry?.signal.removeEventListener("abort", onHurry);
    // A listener that stays keeps the race alive, and with it the answer, for as long as the caller's signal lives.
    either.removeEventListener("abort", onAbort);
  }
}
