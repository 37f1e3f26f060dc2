import { expect, test } from "bun:test";
import { open } from "node:fs/promises";

import {
  StoreError,
  isStoreError,
  type BodySource,
  type Store,
  type StoreErrorKind,
} from "../../src/store/store.ts";
import { until } from "../support/until.ts";

export interface Harness {
  /** An empty store of its own for one test. */
  open(): Promise<Store & Partial<AsyncDisposable>>;
  /** Lets a second pass for stores that take one write per second and key. */
  tick?(): Promise<void>;
}

const MIB = 1 << 20;
const text = new TextEncoder();

/** What every store keeps to. `subject` begins the name of each test. */
export function testStore(subject: string, harness: Harness): void {
  const given = (name: string, body: (store: Store) => Promise<void>): void => {
    test(`${subject} ${name}`, async () => {
      const store = await harness.open();
      try {
        await body(store);
      } finally {
        await store[Symbol.asyncDispose]?.();
      }
    }, 120_000);
  };

  given("gives back what was put", async (store) => {
    await store.put("a/b", text.encode("hello"));
    expect(await textOf(store, "a/b")).toBe("hello");
    expect(await drain(await store.stream("a/b"))).toEqual(text.encode("hello"));
  });

  given("keeps an empty object", async (store) => {
    await store.put("empty", new Uint8Array(0));
    await store.put("empty-source", sourceOf([]));
    for (const key of ["empty", "empty-source"]) {
      expect(await store.get(key)).toEqual(new Uint8Array(0));
      expect(await drain(await store.stream(key))).toEqual(new Uint8Array(0));
      expect(await store.head(key)).toMatchObject({ key, sizeBytes: 0 });
      expect(await store.get(key, { range: { start: 0, end: 4 } })).toEqual(new Uint8Array(0));
    }
  });

  given("does not share memory with the caller", async (store) => {
    const bytes = text.encode("before");
    await store.put("k", bytes);
    bytes.fill(0);
    (await store.get("k")).fill(0);
    expect(await textOf(store, "k")).toBe("before");
  });

  given("takes a source that reuses the memory of its chunks", async (store) => {
    const chunk = new Uint8Array(MIB);
    const sizeBytes = 9 * MIB;
    await store.put("k", {
      sizeBytes,
      async *open() {
        for (let number = 0; number < 9; number += 1) yield chunk.fill(number);
      },
    });
    const bytes = await store.get("k");
    expect(bytes.byteLength).toBe(sizeBytes);
    for (let number = 0; number < 9; number += 1) {
      expect(
        bytes.subarray(number * MIB, (number + 1) * MIB).every((byte) => byte === number),
      ).toBe(true);
    }
  });

  test.each([
    [{ start: 0, end: 3 }, "012"],
    [{ start: 3, end: 7 }, "3456"],
    [{ start: 7, end: 100 }, "789"],
    [{ start: 4, end: 4 }, ""],
    [{ start: 10, end: 12 }, ""],
    [{ start: 50, end: 60 }, ""],
  ])(`${subject} gives the range %j`, async (range, expected) => {
    const store = await harness.open();
    await store.put("k", text.encode("0123456789"));
    expect(await textOf(store, "k", range)).toBe(expected);
    expect(await drain(await store.stream("k", { range }))).toEqual(text.encode(expected));
    await store[Symbol.asyncDispose]?.();
  });

  given("refuses what is no range", async (store) => {
    await store.put("k", text.encode("0123456789"));
    for (const range of [
      { start: 5, end: 4 },
      { start: -1, end: 4 },
      { start: 0, end: Number.NaN },
      { start: 0.5, end: 2 },
    ]) {
      await expect(store.get("k", { range })).rejects.toBeInstanceOf(RangeError);
    }
  });

  given("tells a missing object from everything else", async (store) => {
    await store.put("a/b", text.encode("hello"));
    for (const key of ["nope", "a", "a/b/c", "a/bb"]) {
      await expectKind(store.get(key), "missing");
      await expectKind(store.stream(key), "missing");
      await expectKind(store.get(key, { range: { start: 2, end: 2 } }), "missing");
      expect(await store.head(key)).toBeUndefined();
    }
  });

  given("knows size and time of an object", async (store) => {
    await store.put("a/b", text.encode("hello"));
    const info = await store.head("a/b");
    const page = await store.list("a/");
    expect(info).toMatchObject({ key: "a/b", sizeBytes: 5 });
    expect(page.objects).toHaveLength(1);
    expect(page.objects[0]).toMatchObject({ key: "a/b", sizeBytes: 5 });
    // Servers round to seconds.
    for (const time of [info?.modifiedMs, page.objects[0]?.modifiedMs]) {
      expect(Math.abs(page.nowMs - (time ?? 0))).toBeLessThan(60_000);
    }
  });

  given("replaces an object without ifAbsent", async (store) => {
    await store.put("k", text.encode("first, and longer"));
    await harness.tick?.();
    await store.put("k", text.encode("second"));
    expect(await textOf(store, "k")).toBe("second");
  });

  given("keeps the first of two puts with ifAbsent", async (store) => {
    await store.put("k", text.encode("first"), { ifAbsent: true });
    await harness.tick?.();
    await expectKind(store.put("k", text.encode("second"), { ifAbsent: true }), "exists");
    await expectKind(
      store.put("k", sourceOf([text.encode("third")]), { ifAbsent: true }),
      "exists",
    );
    expect(await textOf(store, "k")).toBe("first");
  });

  given("takes a put with ifAbsent again after a delete", async (store) => {
    await store.put("k", text.encode("first"), { ifAbsent: true });
    await store.delete(["k"]);
    await harness.tick?.();
    await store.put("k", text.encode("second"), { ifAbsent: true });
    expect(await textOf(store, "k")).toBe("second");
  });

  given("lets exactly one of ten racing puts with ifAbsent win", async (store) => {
    for (let round = 0; round < 5; round += 1) {
      const key = `race/${round}`;
      const outcomes = await Promise.allSettled(
        Array.from({ length: 10 }, (_, racer) =>
          untilDecided(() => store.put(key, text.encode(`racer ${racer}`), { ifAbsent: true })),
        ),
      );
      const winners = outcomes.flatMap((outcome, racer) =>
        outcome.status === "fulfilled" ? [racer] : [],
      );
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") {
          expect(isStoreError(outcome.reason, "exists", "throttled")).toBe(true);
        }
      }
      expect(await textOf(store, key)).toBe(`racer ${winners[0]}`);
    }
  });

  given("lists in the order of bytes, in pages, after a key", async (store) => {
    const keys = [
      "B",
      "a",
      "a-b",
      "a.b",
      "a/b",
      "a/b-c/d",
      "a/b/c",
      "a0",
      "a_b",
      "b/1",
      "b/10",
      "b/2",
    ];
    const legal = keys.filter((key) => key !== "a" && key !== "a/b");
    for (const key of legal.toReversed()) await store.put(key, text.encode(key));

    expect(await keysOf(store, "")).toEqual(legal);
    expect(await keysOf(store, "", 1)).toEqual(legal);
    expect(await keysOf(store, "", 3)).toEqual(legal);
    expect(await keysOf(store, "a")).toEqual(legal.filter((key) => key.startsWith("a")));
    expect(await keysOf(store, "a/")).toEqual(["a/b-c/d", "a/b/c"]);
    expect(await keysOf(store, "a/b/")).toEqual(["a/b/c"]);
    expect(await keysOf(store, "b/1")).toEqual(["b/1", "b/10"]);
    expect(await keysOf(store, "c")).toEqual([]);
    for (const after of [...legal, "", "a", "a/", "a/b", "a/b/cc", "b/100", "zzz"]) {
      const page = await store.list("", { after });
      expect([after, page.objects.map((object) => object.key)]).toEqual([
        after,
        legal.filter((key) => key > after),
      ]);
    }
    const last = await store.list("", { limit: legal.length });
    expect(last.more).toBe(false);
    const short = await store.list("", { limit: legal.length - 1 });
    expect(short.more).toBe(true);
  });

  given("gives at most 1,000 objects in a page", async (store) => {
    const keys = Array.from({ length: 1_030 }, (_, n) => `many/${String(n).padStart(5, "0")}`);
    await inParallel(keys, (key) => store.put(key, text.encode("x")));
    const first = await store.list("many/", { limit: 5_000 });
    expect(first.objects.map((object) => object.key)).toEqual(keys.slice(0, 1_000));
    expect(first.more).toBe(true);
    const second = await store.list("many/", { after: first.objects.at(-1)?.key ?? "" });
    expect(second.objects.map((object) => object.key)).toEqual(keys.slice(1_000));
    expect(second.more).toBe(false);
    await store.delete(keys);
    expect(await keysOf(store, "many/")).toEqual([]);
  });

  given("deletes, and takes a missing object as deleted", async (store) => {
    await store.put("a/b", text.encode("hello"));
    await store.put("a/c", text.encode("hello"));
    await store.delete(["a/b", "nope", "a/b/c"]);
    await store.delete(["a/b"]);
    await store.delete([]);
    expect(await keysOf(store, "")).toEqual(["a/c"]);
    expect(await store.head("a/b")).toBeUndefined();
  });

  test.each([
    "-",
    "...",
    ".hidden/..x/x..",
    "a_b-c.d",
    "commits/0000000042.tar.zst",
    "UPPER/lower",
    "x".repeat(255),
    `${"deep/".repeat(190)}x`,
    ["a", "b", "c", "d"]
      .map((letter) => letter.repeat(255))
      .join("/")
      .slice(0, 980),
  ])(`${subject} takes the odd but legal key %s`, async (key) => {
    const store = await harness.open();
    await store.put(key, text.encode(key), { ifAbsent: true });
    expect(await textOf(store, key)).toBe(key);
    expect(await keysOf(store, "")).toEqual([key]);
    await store.delete([key]);
    expect(await keysOf(store, "")).toEqual([]);
    await store[Symbol.asyncDispose]?.();
  });

  test.each([
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../../b",
    "a/./b",
    "a b",
    "é",
    "a\0b",
    "a\nb",
    "a%2e%2e",
    "~unfinished/x",
    "x".repeat(1_025),
    "x".repeat(256),
  ])(`${subject} refuses the key %j`, async (key) => {
    const store = await harness.open();
    await expectKind(store.put(key, text.encode("x")), "unsupported");
    await expectKind(store.put(key, text.encode("x"), { ifAbsent: true }), "unsupported");
    await expectKind(store.delete([key]), "unsupported");
    expect(await keysOf(store, "")).toEqual([]);
    await store[Symbol.asyncDispose]?.();
  });

  given("takes a large body from memory and from a source", async (store) => {
    const bytes = noise(20 * MIB + 12_345);
    const chunks = inChunks(bytes, 300_007);
    for (const [key, body, ifAbsent] of [
      ["bytes", bytes, false],
      ["bytes-if-absent", bytes, true],
      ["source", sourceOf(chunks), false],
      ["source-if-absent", sourceOf(chunks), true],
    ] as const) {
      await store.put(key, body, { ifAbsent });
      expect(Bun.hash(await store.get(key))).toBe(Bun.hash(bytes));
      expect(Bun.hash(await drain(await store.stream(key)))).toBe(Bun.hash(bytes));
      expect(await store.head(key)).toMatchObject({ sizeBytes: bytes.byteLength });
      const range = { start: 8 * MIB - 5, end: 8 * MIB + 5 };
      expect(await store.get(key, { range })).toEqual(bytes.slice(range.start, range.end));
    }
    await expectKind(store.put("source-if-absent", sourceOf(chunks), { ifAbsent: true }), "exists");
  });

  test.each([
    ["small", 10],
    ["of one part", 8 * MIB],
    ["of several parts", 17 * MIB],
    ["that ends with a part", 24 * MIB],
  ])(
    `${subject} keeps nothing of a source that fails, %s`,
    async (_, sizeBytes) => {
      const store = await harness.open();
      const chunks = inChunks(noise(sizeBytes), MIB);
      const failure = new Error("the source broke");
      const failing = (after: number): BodySource => ({
        sizeBytes,
        async *open() {
          yield* chunks.slice(0, after);
          await Promise.resolve();
          throw failure;
        },
      });
      for (const ifAbsent of [false, true]) {
        for (const after of new Set([0, chunks.length - 1, chunks.length])) {
          await expect(store.put("k", failing(after), { ifAbsent })).rejects.toBe(failure);
          expect(await store.head("k")).toBeUndefined();
        }
        const short = { ...sourceOf(chunks), sizeBytes: sizeBytes + 1 };
        await expect(store.put("k", short, { ifAbsent })).rejects.toThrow(
          /gave \d+ of its \d+ bytes/,
        );
        const long = { ...sourceOf(chunks), sizeBytes: sizeBytes - 1 };
        await expect(store.put("k", long, { ifAbsent })).rejects.toThrow(/more than its \d+ bytes/);
      }
      expect(await store.head("k")).toBeUndefined();
      expect(await keysOf(store, "")).toEqual([]);
      // Nothing in the way of the next one.
      await store.put("k", sourceOf(chunks), { ifAbsent: true });
      expect(await store.head("k")).toMatchObject({ sizeBytes });
      await store[Symbol.asyncDispose]?.();
    },
    120_000,
  );

  given("fails with the source's own error, even where that is a disk's", async (store) => {
    for (const sizeBytes of [10, 9 * MIB]) {
      const failing: BodySource = {
        sizeBytes,
        async *open() {
          yield new Uint8Array(5);
          await open("/nonexistent/file");
        },
      };
      await expect(store.put("k", failing)).rejects.toMatchObject({ code: "ENOENT" });
    }
  });

  given("leaves the old object alone when a put fails", async (store) => {
    await store.put("k", text.encode("old"));
    await harness.tick?.();
    const failing = {
      sizeBytes: 5,
      async *open() {
        yield text.encode("new");
        throw new Error("the source broke");
      },
    };
    await expect(store.put("k", failing)).rejects.toThrow("the source broke");
    expect(await textOf(store, "k")).toBe("old");
  });

  given("does nothing for a signal that is aborted already", async (store) => {
    await store.put("k", text.encode("old"));
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(store.put("new", text.encode("x"), { signal })).rejects.toBe(reason);
    await expect(store.get("k", { signal })).rejects.toBe(reason);
    await expect(store.stream("k", { signal })).rejects.toBe(reason);
    await expect(store.head("k", { signal })).rejects.toBe(reason);
    await expect(store.list("", { signal })).rejects.toBe(reason);
    await expect(store.delete(["k"], { signal })).rejects.toBe(reason);
    expect(await keysOf(store, "")).toEqual(["k"]);
  });

  test.each([
    ["small", 10],
    ["of several parts", 20 * MIB],
  ])(`${subject} ends a put with its signal while the source hangs, %s`, async (_, sizeBytes) => {
    const store = await harness.open();
    const abort = new AbortController();
    const reason = new Error("enough");
    let asked = 0;
    const hanging: BodySource = {
      sizeBytes,
      async *open() {
        for (const chunk of inChunks(noise(sizeBytes), MIB).slice(0, -1)) {
          asked += 1;
          yield chunk;
        }
        asked = Infinity;
        await new Promise(() => undefined);
      },
    };
    const put = store.put("k", hanging, { signal: abort.signal });
    const ended = put.then(
      () => "done",
      (error: unknown) => error,
    );
    await until(() => asked === Infinity, "the source to hang");
    abort.abort(reason);
    expect(await ended).toBe(reason);
    expect(await store.head("k")).toBeUndefined();
    await store[Symbol.asyncDispose]?.();
  });

  given("ends a stream with its signal", async (store) => {
    await store.put("k", noise(9 * MIB));
    const abort = new AbortController();
    const reason = new Error("enough");
    const stream = await store.stream("k", { signal: abort.signal });
    const reader = stream.getReader();
    expect((await reader.read()).done).toBe(false);
    abort.abort(reason);
    await expect(
      (async () => {
        while (!(await reader.read()).done) continue;
      })(),
    ).rejects.toBe(reason);
  });

  given("can drop a stream half-way", async (store) => {
    await store.put("k", noise(9 * MIB));
    for (let round = 0; round < 5; round += 1) {
      const reader = (await store.stream("k")).getReader();
      await reader.read();
      await reader.cancel();
    }
    expect(await store.head("k")).toMatchObject({ sizeBytes: 9 * MIB });
  });

  given("serves many at once", async (store) => {
    const keys = Array.from({ length: 200 }, (_, n) => `many/${n % 7}/${n}`);
    await inParallel(keys, (key) => store.put(key, text.encode(key), { ifAbsent: true }));
    await inParallel(keys, async (key) => expect(await textOf(store, key)).toBe(key));
    expect(await keysOf(store, "", 64)).toEqual(keys.toSorted());
  });
}

/** A source of the given chunks. */
export function sourceOf(chunks: readonly Uint8Array[]): BodySource {
  return {
    sizeBytes: chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0),
    async *open() {
      yield* chunks;
    },
  };
}

/** Bytes that do not compress and are the same in every run. */
export function noise(sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  let state = 0x9e3779b9;
  for (let index = 0; index < sizeBytes; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

export async function expectKind(
  action: Promise<unknown>,
  kind: StoreErrorKind,
): Promise<StoreError> {
  const error = await action.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(error instanceof StoreError)) {
    throw new Error(`Expected a StoreError of kind ${kind}, got ${String(error)}`, {
      cause: error,
    });
  }
  expect([error.kind, error.message]).toEqual([kind, error.message]);
  return error;
}

export async function drain(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}

async function textOf(
  store: Store,
  key: string,
  range?: { readonly start: number; readonly end: number },
): Promise<string> {
  return new TextDecoder().decode(await store.get(key, range ? { range } : {}));
}

async function keysOf(store: Store, prefix: string, limit?: number): Promise<string[]> {
  const keys: string[] = [];
  for (;;) {
    const page = await store.list(prefix, {
      ...(limit === undefined ? {} : { limit }),
      ...(keys.length === 0 ? {} : { after: keys.at(-1) ?? "" }),
    });
    keys.push(...page.objects.map((object) => object.key));
    if (limit !== undefined) expect(page.objects.length).toBeLessThanOrEqual(limit);
    if (!page.more) return keys;
  }
}

/** Repeats what has no outcome: a conflict of two writers is answered with "try again". */
async function untilDecided(action: () => Promise<void>): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await action();
    } catch (error) {
      if (!isStoreError(error, "unavailable") || tries === 20) throw error;
    }
  }
}

async function inParallel<T>(
  items: readonly T[],
  action: (item: T) => Promise<unknown>,
): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await action(item);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}

function inChunks(bytes: Uint8Array, size: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.byteLength; start += size) {
    chunks.push(bytes.subarray(start, start + size));
  }
  return chunks;
}
