/** Wait before the first start after a death; doubles with each further one in a row. */
const BASE_MS = 500;
const LIMIT_MS = 30_000;
/** Up to this share is added at random, so that what died together does not start together. */
const JITTER = 0.1;
/** A child that was up this long is healthy: the next death is a first one. */
const HEALTHY_MS = 30_000;
const LOOP_DEATHS = 5;
const LOOP_WINDOW_MS = 60_000;
/** A child that failed for good is tried again this often: what it lacked may have come back. */
export const RETRY_MS = 300_000;

/** What a service remembers of its deaths. A value: every step returns a new one. */
export interface Deaths {
  /** Monotonic milliseconds of those within the window, oldest first. */
  readonly times: readonly number[];
  /** Deaths in a row that the delay grows with. */
  readonly row: number;
  /** True for the single start that follows a failure: dying soon fails again at once. */
  readonly trial: boolean;
}

/** What follows a death. */
export type Sequel =
  | { readonly kind: "again"; readonly delayMs: number }
  /** `words` say what made it one. */
  | { readonly kind: "loop"; readonly words: string };

export const NO_DEATHS: Deaths = { times: [], row: 0, trial: false };

/** A failed service's retry. */
export const TRIAL: Deaths = { times: [], row: 0, trial: true };

/**
 * Counts one death. `grows` is false for an end the child wanted: it waits the base delay and leaves the row alone,
 * but counts towards the loop, because a child that cannot get its port may also end as if it wanted to.
 */
export function afterDeath(
  deaths: Deaths,
  death: {
    readonly at: number;
    readonly upMs: number;
    readonly grows: boolean;
    readonly random: number;
  },
): { readonly deaths: Deaths; readonly sequel: Sequel } {
  const { at, upMs, grows, random } = death;
  const healthy = upMs >= HEALTHY_MS;
  const times = [...deaths.times.filter((time) => at - time < LOOP_WINDOW_MS), at];
  const before = healthy ? 0 : deaths.row;
  const row = grows ? before + 1 : before;
  const next = { times, row, trial: false };
  if (deaths.trial && !healthy) {
    return { deaths: next, sequel: { kind: "loop", words: "tried again in vain" } };
  }
  if (times.length >= LOOP_DEATHS) {
    const seconds = Math.ceil((at - (times[0] ?? at)) / 1_000);
    return {
      deaths: next,
      sequel: { kind: "loop", words: `${times.length} times within ${seconds} s` },
    };
  }
  const delayMs = grows ? delayAfter(row, random) : delayAfter(1, random);
  return { deaths: next, sequel: { kind: "again", delayMs } };
}

/** Milliseconds before the start after `row` deaths in a row (1 is the first). `random` is in [0, 1). */
export function delayAfter(row: number, random: number): number {
  const delay = Math.min(LIMIT_MS, BASE_MS * 2 ** (row - 1));
  return Math.round(delay * (1 + JITTER * random));
}
