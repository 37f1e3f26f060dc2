import { expect, test } from "bun:test";

import { Turns } from "../../../src/backup/commit/turns.ts";

const never = new AbortController().signal;

test("turns are taken one after the other, in the order they were asked for", async () => {
  const turns = new Turns();
  const said: string[] = [];
  const take = (name: string): Promise<string> =>
    turns.take(async () => {
      said.push(`${name} begins`);
      await Promise.resolve();
      said.push(`${name} ends`);
      return name;
    }, never);
  expect(await Promise.all(["a", "b", "c"].map(take))).toEqual(["a", "b", "c"]);
  expect(said).toEqual(["a", "b", "c"].flatMap((name) => [`${name} begins`, `${name} ends`]));
});

test("a turn that fails, and one that is given up, hold up nobody", async () => {
  const turns = new Turns();
  const first = Promise.withResolvers<string>();
  const ending = new AbortController();
  let running = false;
  const one = turns.take(() => first.promise, never);
  const two = turns.take(async () => {
    running = true;
  }, ending.signal);
  const three = turns.take(async () => "three", never);
  ending.abort(new Error("no longer wanted"));
  await expect(two).rejects.toThrow("no longer wanted");
  // Who came after it waits all the same for the one before.
  expect(await Promise.race([three, Promise.resolve("waits")])).toBe("waits");
  first.reject(new Error("it failed"));
  await expect(one).rejects.toThrow("it failed");
  expect(await three).toBe("three");
  expect(running).toBe(false);
});
