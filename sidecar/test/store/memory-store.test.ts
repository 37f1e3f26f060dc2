import { expect, test } from "bun:test";

import { ManualClock } from "../support/manual-clock.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { expectKind, testStore } from "./contract.ts";

let clock = new ManualClock();

testStore("MemoryStore", {
  open: async () => {
    clock = new ManualClock();
    return new MemoryStore(clock);
  },
  tick: () => clock.advance(1_000),
});

test("MemoryStore takes one write per second and key", async () => {
  const clock = new ManualClock();
  const store = new MemoryStore(clock);
  await store.put("a", new Uint8Array(1));
  await store.put("b", new Uint8Array(1));
  await clock.advance(999);
  await expectKind(store.put("a", new Uint8Array(2)), "throttled");
  await clock.advance(1);
  await store.put("a", new Uint8Array(2));
  expect(await store.head("a")).toMatchObject({ sizeBytes: 2, modifiedMs: clock.now() });
});
