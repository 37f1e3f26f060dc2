import { expect, test } from "bun:test";

import { commitIntervalMs } from "../../../src/backup/commit/pace.ts";

const MIDNIGHT = Date.UTC(2026, 10, 20);
const HOUR = 3_600_000;

test.each([
  { what: "at midnight with nothing spent it is fast", since: 0, made: 0, expected: 1_000 },
  {
    what: "with what was in hand spent the day is shared out",
    since: 0,
    made: 500,
    expected: 19_200,
  },
  {
    what: "what the morning has saved may be spent",
    since: 12 * HOUR,
    made: 2_900,
    expected: 1_000,
  },
  { what: "what it has not saved is shared out", since: 12 * HOUR, made: 3_000, expected: 21_600 },
  { what: "late with much left it is fast", since: 23.9 * HOUR, made: 0, expected: 1_000 },
  { what: "after a busy morning it is slow", since: 12 * HOUR, made: 4_000, expected: 30_000 },
  { what: "with the budget spent it goes on", since: 12 * HOUR, made: 5_000, expected: 30_000 },
  { what: "and beyond the budget too", since: 12 * HOUR, made: 9_000, expected: 30_000 },
])("$what", ({ since, made, expected }) => {
  const interval = commitIntervalMs({ now: MIDNIGHT + since, commitsToday: made });
  expect(Math.round(interval)).toBe(expected);
});

test("a machine that commits as often as it may stays near its budget", () => {
  let commitsToday = 0;
  for (let now = MIDNIGHT; now < MIDNIGHT + 24 * HOUR; commitsToday += 1) {
    now += commitIntervalMs({ now, commitsToday });
  }
  expect(commitsToday).toBeGreaterThan(4_900);
  expect(commitsToday).toBeLessThan(5_800);
});
