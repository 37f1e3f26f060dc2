import type { Clock } from "../../platform/clock.ts";

/** A wall clock that moves by so much more or less than the monotonic one was set, or the machine slept. */
const GAP_MS = 5_000;
const TICK_MS = 1_000;

/** Tells of every gap between the two clocks, until the signal aborts; rejects with its reason. */
export async function watchClock(
  clock: Clock,
  { onGap, signal }: { readonly onGap: (gapMs: number) => void; readonly signal: AbortSignal },
): Promise<never> {
  for (let last = clock.now() - clock.monotonic(); ;) {
    await clock.sleep(TICK_MS, signal);
    const difference = clock.now() - clock.monotonic();
    const gapMs = Math.round(difference - last);
    if (Math.abs(gapMs) > GAP_MS) onGap(gapMs);
    last = difference;
  }
}
