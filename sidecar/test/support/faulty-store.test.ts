import { expect, test } from "bun:test";

import { drain, expectKind, testStore } from "../store/contract.ts";
import { FaultyStore, allOf, faultAt, flipBit } from "./faulty-store.ts";
import { ManualClock } from "./manual-clock.ts";
import { MemoryStore } from "./memory-store.ts";

const hello = new TextEncoder().encode("hello");
let clock = new ManualClock();

testStore("FaultyStore without faults", {
  open: async () => {
    clock = new ManualClock();
    return new FaultyStore(new MemoryStore(clock));
  },
  tick: () => clock.advance(1_000),
});

test("FaultyStore fails before or after the write happened", async () => {
  const memory = new MemoryStore();
  const store = new FaultyStore(
    memory,
    allOf(
      faultAt({ key: "before", phase: "before" }, { fail: "unavailable" }),
      faultAt({ key: "after", phase: "after" }, { fail: "unavailable" }),
    ),
  );
  await expectKind(store.put("before", hello), "unavailable");
  await expectKind(store.put("after", hello, { ifAbsent: true }), "unavailable");
  expect(memory.keys).toEqual(["after"]);
});

test("FaultyStore counts steps, by operation and by key", async () => {
  const store = new FaultyStore(
    new MemoryStore(),
    faultAt({ operation: "get", countOfKey: 2, phase: "before" }, { fail: "throttled" }),
  );
  await store.put("a", hello);
  await store.put("b", hello);
  await store.get("a");
  await store.get("b");
  await expectKind(store.get("a"), "throttled");
  await store.get("a");
  expect(store.steps.filter((step) => step.phase === "before").map((step) => step.count)).toEqual([
    1, 2, 1, 2, 3, 4,
  ]);
});

test("FaultyStore corrupts what is written and what is read", async () => {
  const memory = new MemoryStore();
  const store = new FaultyStore(memory, faultAt({ phase: "before" }, { corrupt: flipBit }, 1));
  await store.put("a", hello);
  expect(new TextDecoder().decode(await memory.get("a"))).toBe("helln");
  store.script = faultAt({ phase: "after" }, { corrupt: flipBit });
  expect(new TextDecoder().decode(await store.get("a"))).toBe("hello");
  expect(new TextDecoder().decode(await drain(await store.stream("a")))).toBe("hello");
});

test("FaultyStore hangs until aborted, and delays by its clock", async () => {
  const clock = new ManualClock();
  const store = new FaultyStore(new MemoryStore(), faultAt({}, { hang: true }, 1), clock);
  const abort = new AbortController();
  const hanging = store.put("a", hello, { signal: abort.signal });
  const reason = new Error("enough");
  abort.abort(reason);
  await expect(hanging).rejects.toBe(reason);

  store.script = faultAt({ phase: "before" }, { delayMs: 500 }, 1);
  let done = false;
  const delayed = store.put("a", hello).then(() => (done = true));
  await clock.advance(499);
  expect(done).toBe(false);
  await clock.advance(1);
  await delayed;
});

test("FaultyStore lets a script act between two steps", async () => {
  const memory = new MemoryStore();
  const store = new FaultyStore(memory, async (step) => {
    // Another machine is faster.
    if (step.phase === "before" && step.ifAbsent) await memory.put(step.key, hello);
  });
  await expectKind(store.put("commits/1", hello, { ifAbsent: true }), "exists");
});
