import { expect, test } from "bun:test";

import { OomWatch } from "../../src/supervisor/oom-watch.ts";
import { ManualClock } from "../support/manual-clock.ts";

test("OomWatch tells a kill of the last seconds from an older one", async () => {
  const clock = new ManualClock();
  let kills = 3;
  const watch = new OomWatch(clock, () => kills);
  expect(watch.justKilled()).toBe(false);
  for (let second = 0; second < 30; second += 1) {
    watch.sample();
    await clock.advance(1_000);
  }
  expect(watch.justKilled()).toBe(false);
  kills += 1;
  expect(watch.justKilled()).toBe(true);
  watch.sample();
  expect(watch.justKilled()).toBe(true);
  for (let second = 0; second < 30; second += 1) {
    watch.sample();
    await clock.advance(1_000);
  }
  expect(watch.justKilled()).toBe(false);
});

test("OomWatch says no where the kernel does not count", () => {
  const watch = new OomWatch(new ManualClock(), () => undefined);
  watch.sample();
  expect(watch.justKilled()).toBe(false);
});

test("OomWatch reads this kernel's count", () => {
  const watch = new OomWatch(new ManualClock());
  watch.sample();
  expect(watch.justKilled()).toBe(false);
});
