/** Source: backup.md, "Pace": about $0.02 a day. */
export const DAILY_BUDGET = 5_000;

const FASTEST_MS = 1_000;
const SLOWEST_MS = 30_000;
const DAY_MS = 86_400_000;
/** Of the day's budget, what may be spent ahead of time. */
const IN_HAND_SHARE = 0.1;

export interface PaceState {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Commits made since midnight, UTC. */
  readonly commitsToday: number;
  readonly budget?: number;
}

/**
 * How far apart commits are at the moment. As long as fewer were made than the share of the budget that belongs to the
 * part of the day that is over, plus a tenth in hand, they may come as fast as they can: sharing out what is left from
 * midnight on would keep the first change after it waiting for 17 s with nothing spent. Beyond that, what is left of the
 * budget is shared out until midnight, UTC. The first one of a burst need not wait: the last is long ago.
 */
export function commitIntervalMs({ now, commitsToday, budget = DAILY_BUDGET }: PaceState): number {
  const left = budget - commitsToday;
  if (left <= 0) return SLOWEST_MS;
  const sinceMidnight = ((now % DAY_MS) + DAY_MS) % DAY_MS;
  const earned = budget * (sinceMidnight / DAY_MS + IN_HAND_SHARE);
  if (commitsToday < earned) return FASTEST_MS;
  return Math.min(Math.max((DAY_MS - sinceMidnight) / left, FASTEST_MS), SLOWEST_MS);
}
