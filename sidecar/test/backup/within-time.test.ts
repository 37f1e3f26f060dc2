import { expect, test } from "bun:test";

import { withinTime } from "../../src/backup/within-time.ts";
import { ManualClock } from "../support/manual-clock.ts";

const never = (): Promise<never> => new Promise(() => {});

test("an answer in time is passed on, and its error too", async () => {
  const clock = new ManualClock();
  const { signal } = new AbortController();
  const options = { clock, signal, limitMs: 100 };
  expect(await withinTime(async () => 7, options)).toBe(7);
  const failing = withinTime(() => Promise.reject(new Error("no")), options);
  await expect(failing).rejects.toThrow("no");
});

test("a store that hangs is unavailable after the limit, and is told so", async () => {
  const clock = new ManualClock();
  let told: AbortSignal | undefined;
  const work = withinTime(
    (signal) => {
      told = signal;
      return never();
    },
    { clock, signal: new AbortController().signal, limitMs: 100 },
  );
  const failed = work.catch((error: unknown) => error);
  await clock.advance(101);
  expect(await failed).toMatchObject({ kind: "unavailable" });
  expect(told?.aborted).toBe(true);
});

test("the caller's signal wins, before and while it waits", async () => {
  const clock = new ManualClock();
  const stop = new AbortController();
  const waiting = withinTime(never, { clock, signal: stop.signal, limitMs: 100 });
  const failed = waiting.catch((error: unknown) => error);
  stop.abort(new Error("stopped"));
  expect(await failed).toMatchObject({ message: "stopped" });
  const late = withinTime(never, { clock, signal: stop.signal, limitMs: 100 });
  await expect(late).rejects.toThrow("stopped");
});
