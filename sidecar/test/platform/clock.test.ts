import { expect, test } from "bun:test";

import { systemClock } from "../../src/platform/clock.ts";
import { ManualClock } from "../support/manual-clock.ts";

test.each([
  ["systemClock", systemClock],
  ["ManualClock", new ManualClock()],
])("%s.sleep() rejects with the reason of an aborted signal", async (_, clock) => {
  const reason = new Error("enough");
  await expect(clock.sleep(60_000, AbortSignal.abort(reason))).rejects.toBe(reason);
  const controller = new AbortController();
  const sleeping = clock.sleep(60_000, controller.signal);
  controller.abort(reason);
  await expect(sleeping).rejects.toBe(reason);
});

test("systemClock.after() calls once, and never when it was cancelled", async () => {
  const calls: string[] = [];
  systemClock.after(5, () => calls.push("kept"));
  systemClock.after(5, () => calls.push("cancelled"))();
  await systemClock.sleep(30);
  expect(calls).toEqual(["kept"]);
});

test("ManualClock fires timers in the order of their times", async () => {
  const clock = new ManualClock();
  const order: number[] = [];
  clock.after(20, () => order.push(20));
  clock.after(10, () => {
    order.push(10);
    clock.after(5, () => order.push(15));
  });
  await clock.advance(30);
  expect(order).toEqual([10, 15, 20]);
  expect(clock.monotonic()).toBe(30);
});
