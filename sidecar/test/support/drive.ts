import type { ManualClock } from "./manual-clock.ts";

/** Lets fake time pass, and real work be done, until `work` settles. Fails when it has not after `limitMs` of fake time. */
export async function drive<T>(
  clock: ManualClock,
  work: Promise<T>,
  { stepMs = 250, limitMs = 600_000 } = {},
): Promise<T> {
  const state = { settled: false };
  const mark = (): void => {
    state.settled = true;
  };
  work.then(mark, mark);
  const end = clock.monotonic() + limitMs;
  for (;;) {
    // Real work, such as compressing on another thread, gets its time before the fake clock goes on.
    for (let turn = 0; turn < 3 && !state.settled; turn += 1)
      await new Promise((resolve) => setTimeout(resolve, 1));
    if (state.settled) return work;
    if (clock.monotonic() >= end) throw new Error(`Not settled after ${limitMs} ms of fake time`);
    await clock.advance(stepMs);
  }
}
