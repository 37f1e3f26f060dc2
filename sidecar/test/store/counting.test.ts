import { expect, test } from "bun:test";

import { CountingStore } from "../../src/store/counting.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { drain, expectKind, sourceOf, testStore } from "./contract.ts";

let clock = new ManualClock();

testStore("CountingStore", {
  open: async () => {
    clock = new ManualClock();
    return new CountingStore(new MemoryStore(clock));
  },
  tick: () => clock.advance(1_000),
});

test("CountingStore counts requests by class and bytes by direction, refused requests too", async () => {
  const store = new CountingStore(new MemoryStore());
  await store.put("a", new Uint8Array(100));
  await store.put("b", sourceOf([new Uint8Array(20), new Uint8Array(3)]));
  await expectKind(store.put("a", new Uint8Array(7), { ifAbsent: true }), "exists");
  await store.get("a", { range: { start: 10, end: 30 } });
  await drain(await store.stream("b"));
  await expectKind(store.get("c"), "missing");
  await store.head("a");
  await store.list("");
  await store.delete(["a", "b"]);
  expect(store.counts).toEqual({
    classA: 4,
    classB: 4,
    deletes: 1,
    sentBytes: 130,
    receivedBytes: 43,
  });
});
