/** Source: backup.md, "Pace": about $0.02 a day. */
export const DAILY_BUDGET = 5_000;

const FASTEST_MS = 1_000;
const SLOWEST_MS = 30_000;
const DAY_MS = 86_400_000;

export interface PaceState {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Commits made since midnight, UTC. */
  readonly commitsToday: number;
  readonly budget?: number;
}

/** How far apart commits are at the moment, so that the budget lasts until midnight, UTC. The first one of a burst need not wait: the last is long ago. */
export function commitIntervalMs({ now, commitsToday, budget = DAILY_BUDGET }: PaceState): number {
  const left = budget - commitsToday;
  if (left <= 0) return SLOWEST_MS;
  const untilMidnight = DAY_MS - (((now % DAY_MS) + DAY_MS) % DAY_MS);
  return Math.min(Math.max(untilMidnight / left, FASTEST_MS), SLOWEST_MS);
}
