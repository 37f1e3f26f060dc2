import { beforeAll, expect, test } from "bun:test";

import { DirectoryStore } from "../../src/store/directory.ts";
import { probeConditionalPut } from "../../src/store/probe.ts";
import { S3Store } from "../../src/store/s3.ts";
import type { Store } from "../../src/store/store.ts";
import { FaultyStore, faultAt } from "../support/faulty-store.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { S3_START_LIMIT_MS, s3ForTests } from "../support/s3-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { expectKind } from "./contract.ts";

const KEY = "probe/conditional-put";

beforeAll(() => s3ForTests().then(() => undefined), S3_START_LIMIT_MS);

/** Probes while time passes. */
async function probe(store: Store, clock = new ManualClock()): Promise<string> {
  const result = probeConditionalPut(store, KEY, { clock });
  const over = result.then(
    () => true,
    () => true,
  );
  while (!(await Promise.race([over, clock.advance(100)]))) continue;
  return result;
}

test("probeConditionalPut finds a folder fenced, also the second time", async () => {
  using dir = tempDir();
  const store = new DirectoryStore(dir.path);
  expect(await probeConditionalPut(store, KEY)).toBe("fenced");
  expect(await probeConditionalPut(store, KEY)).toBe("fenced");
});

test("probeConditionalPut finds a real S3 server fenced", async () => {
  const s3 = await s3ForTests();
  const store = new S3Store({ ...s3, credentials: () => s3 });
  const key = `${crypto.randomUUID()}/probe`;
  expect(await probeConditionalPut(store, key)).toBe("fenced");
  expect(await probeConditionalPut(store, key)).toBe("fenced");
});

test("probeConditionalPut finds a store unfenced that ignores the condition", async () => {
  const clock = new ManualClock();
  const inner = new MemoryStore(clock);
  const careless = new FaultyStore(inner);
  careless.put = (key, body) => inner.put(key, body);
  expect(await probe(careless, clock)).toBe("unfenced");
  expect(await probe(careless, clock)).toBe("unfenced");
});

test("probeConditionalPut finds a store unfenced that cannot do it", async () => {
  const store = new FaultyStore(new MemoryStore(), faultAt({}, { fail: "unsupported" }));
  expect(await probe(store)).toBe("unfenced");
});

test.each(["throttled", "unavailable"] as const)(
  "probeConditionalPut tries again after %s",
  async (kind) => {
    for (const phase of ["before", "after"] as const) {
      const script = faultAt({ operation: "put", phase }, { fail: kind }, 2);
      expect(await probe(new FaultyStore(new MemoryStore(), script))).toBe("fenced");
    }
  },
);

test("probeConditionalPut fails where the store cannot be asked", async () => {
  const down = new FaultyStore(new MemoryStore(), faultAt({}, { fail: "unavailable" }));
  await expectKind(probe(down), "unavailable");
  expect(down.steps).toHaveLength(6);
  const refused = new FaultyStore(new MemoryStore(), faultAt({}, { fail: "denied" }));
  await expectKind(probe(refused), "denied");
  expect(refused.steps).toHaveLength(1);
});

test("probeConditionalPut ends with its signal", async () => {
  const down = new FaultyStore(new MemoryStore(), faultAt({}, { fail: "unavailable" }));
  const abort = new AbortController();
  const result = probeConditionalPut(down, KEY, { clock: new ManualClock(), signal: abort.signal });
  const reason = new Error("enough");
  abort.abort(reason);
  await expect(result).rejects.toBe(reason);
});
