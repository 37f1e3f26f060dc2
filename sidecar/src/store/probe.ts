import { systemClock, type Clock } from "../platform/clock.ts";
import { isStoreError, type SignalOption, type Store } from "./store.ts";

const TRIES = 6;
/** R2 takes one write per second and key. */
const PAUSE_MS = 1_100;

/** "fenced": of two puts of one key with `ifAbsent` only the first can win. */
export type Fence = "fenced" | "unfenced";

/**
 * Finds out whether a store honours `ifAbsent`, by putting `key` with it twice: the second must be refused as `exists`.
 * A key that is there from an earlier probe is proof too. Fails with the store's error where it cannot be found out.
 */
export async function probeConditionalPut(
  store: Store,
  key: string,
  options: SignalOption & { readonly clock?: Clock } = {},
): Promise<Fence> {
  const { signal, clock = systemClock } = options;
  const body = new TextEncoder().encode("Tells whether this store honours If-None-Match.\n");
  let accepted = 0;
  for (let tries = 1; ; tries += 1) {
    try {
      await store.put(key, body, { ifAbsent: true, signal });
      accepted += 1;
      if (accepted === 2) return "unfenced";
    } catch (error) {
      if (isStoreError(error, "exists")) return "fenced";
      if (isStoreError(error, "unsupported")) return "unfenced";
      if (!isStoreError(error, "throttled", "unavailable") || tries >= TRIES) throw error;
      await clock.sleep(PAUSE_MS, signal);
    }
  }
}
