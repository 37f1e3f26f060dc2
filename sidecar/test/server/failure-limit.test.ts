import { expect, test } from "bun:test";

import { FailureLimit } from "../../src/server/failure-limit.ts";
import { ManualClock } from "../support/manual-clock.ts";

test("an address is told to wait once it is over the limit, until the window ends", async () => {
  const clock = new ManualClock();
  const failures = new FailureLimit({ clock, limit: 3, windowMs: 10_000 });
  expect([1, 2, 3].map(() => failures.add("a"))).toEqual([undefined, undefined, undefined]);
  await clock.advance(4_000);
  expect(failures.add("a")).toBe(6_000);
  expect(failures.add("b")).toBeUndefined();
  await clock.advance(6_000);
  expect(failures.add("a")).toBeUndefined();
});

test("only so many addresses are remembered", () => {
  const failures = new FailureLimit({ clock: new ManualClock(), limit: 1, windowMs: 10_000 });
  failures.add("first");
  for (let i = 0; i < 10_000; i += 1) failures.add(`address ${i}`);
  expect(failures.add("first")).toBeUndefined();
  expect(failures.add("address 9999")).toBe(10_000);
});
