import { expect, test } from "bun:test";

import { Rewatch } from "../../../src/backup/notice/rewatch.ts";
import { ManualClock } from "../../support/manual-clock.ts";

test("Rewatch tries at once, then ever more rarely, and calls only the first failure news", async () => {
  const clock = new ManualClock();
  const rewatch = new Rewatch(clock);
  expect(rewatch.begin()).toBe(true);
  expect(rewatch.failed()).toBe(true);
  for (const waitMs of [
    0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 127_000, 255_000, 300_000,
  ]) {
    if (waitMs > 0) {
      await clock.advance(waitMs - 1);
      expect(rewatch.begin()).toBe(false);
      await clock.advance(1);
    }
    expect(rewatch.begin()).toBe(true);
    expect(rewatch.failed()).toBe(false);
  }
});

test("Rewatch forgets the failures before a minute of watching", async () => {
  const clock = new ManualClock();
  const rewatch = new Rewatch(clock);
  for (let time = 0; time < 20; time += 1) rewatch.failed();
  await clock.advance(300_000);
  expect(rewatch.begin()).toBe(true);
  await clock.advance(60_000);
  expect(rewatch.failed()).toBe(true);
  expect(rewatch.begin()).toBe(true);
});
