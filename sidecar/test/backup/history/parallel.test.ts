import { expect, test } from "bun:test";

import { forEachParallel } from "../../../src/backup/history/parallel.ts";

test("items are worked on in order, so many at a time", async () => {
  const started: number[] = [];
  let running = 0;
  let most = 0;
  await forEachParallel(
    [1, 2, 3, 4, 5, 6, 7],
    async (item) => {
      started.push(item);
      running += 1;
      most = Math.max(most, running);
      await Promise.resolve();
      running -= 1;
    },
    { limit: 3 },
  );
  expect(started).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(most).toBe(3);
});

test("after a failure nothing new is begun, and what runs is waited for", async () => {
  const begun: number[] = [];
  let ended = 0;
  const work = forEachParallel(
    [1, 2, 3, 4, 5],
    async (item) => {
      begun.push(item);
      if (item === 2) throw new Error("two");
      for (let turn = 0; turn < 9; turn += 1) await Promise.resolve();
      ended += 1;
    },
    { limit: 2 },
  );
  await expect(work).rejects.toThrow("two");
  expect(begun).toEqual([1, 2]);
  expect(ended).toBe(1);
});

test("an aborted signal begins nothing", async () => {
  const signal = AbortSignal.abort(new Error("stopped"));
  const work = forEachParallel([1], async () => expect.unreachable(), { limit: 2, signal });
  await expect(work).rejects.toThrow("stopped");
});
