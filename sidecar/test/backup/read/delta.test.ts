import { expect, setDefaultTimeout, test } from "bun:test";

import * as fc from "fast-check";

import { BLOCK_BYTES, BlockHasher, MIN_BLOCKS_BYTES } from "../../../src/backup/format/blocks.ts";
import type { Extent } from "../../../src/backup/format/format.ts";
import {
  DeltaFinder,
  MAX_EXTENTS,
  MAX_HELD_BYTES,
  baseOf,
  extentsOf,
  type Delta,
  type DeltaBase,
} from "../../../src/backup/read/delta.ts";
import { UNRESTORED } from "../../../src/backup/stamp.ts";
import { pseudoRandom } from "../../support/odd-tree.ts";
import { sha256 } from "../../support/readings.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

const KIB = 1024;

function random(size: number, seed: number): Buffer {
  return Buffer.from(pseudoRandom(size, seed));
}

const BASE = random(700 * KIB + 123, 1);

function hashesOf(content: Uint8Array, chunkBytes = 1024 * KIB): Uint8Array {
  const hasher = new BlockHasher();
  for (let at = 0; at < content.length; at += chunkBytes)
    hasher.update(content.subarray(at, at + chunkBytes));
  return hasher.finish();
}

/** A content as the store has it: whole, or in slices of these lengths, the last of which goes to the end. */
function baseFor(content: Uint8Array, lengths: readonly number[] = []): DeltaBase {
  const extents: Extent[] = [];
  let at = 0;
  for (const length of [...lengths, content.length]) {
    const taken = Math.min(length, content.length - at);
    if (taken > 0)
      extents.push({ commit: extents.length + 1, member: "m", offset: at, length: taken });
    at += taken;
  }
  return { sha256: sha256(content), size: content.length, blocks: hashesOf(content), extents };
}

function compare(base: DeltaBase, content: Uint8Array, chunkBytes = 1024 * KIB): Delta | undefined {
  const finder = new DeltaFinder(base, content.length);
  const hasher = new BlockHasher((block, hash) => finder.add(block, hash));
  for (let at = 0; at < content.length; at += chunkBytes)
    hasher.update(content.subarray(at, at + chunkBytes));
  expect(hasher.finish()).toEqual(hashesOf(content));
  return finder.finish();
}

/** The content that a delta says, by its pieces; what it says of itself is checked. */
function applied(base: Uint8Array, content: Uint8Array, delta: Delta): Buffer {
  const { pieces, fresh } = delta;
  const news = Buffer.concat(
    fresh.ranges.map(({ offset, length }) => content.subarray(offset, offset + length)),
  );
  expect(news.length).toBe(fresh.length);
  expect(sha256(news)).toBe(fresh.sha256);
  expect(fresh.bytes === undefined).toBe(fresh.length > MAX_HELD_BYTES);
  if (fresh.bytes) expect(Buffer.from(fresh.bytes).equals(news)).toBe(true);
  return Buffer.concat(
    pieces.map(({ from, offset, length }) =>
      (from === "base" ? base : news).subarray(offset, offset + length),
    ),
  );
}

const at = fc.nat(BASE.length);
type Step = typeof change extends fc.Arbitrary<infer T> ? T : never;
const change = fc.oneof(
  fc.record({ kind: fc.constant("append" as const), length: fc.nat(300 * KIB) }),
  fc.record({
    kind: fc.constant("edit" as const),
    at,
    length: fc.integer({ min: 1, max: 90 * KIB }),
  }),
  fc.record({ kind: fc.constant("cut" as const), at }),
  fc.record({
    kind: fc.constant("insert" as const),
    at,
    length: fc.integer({ min: 1, max: 9 * KIB }),
  }),
);

function changed(content: Buffer, step: Step, seed: number): Buffer {
  if (step.kind === "append") return Buffer.concat([content, random(step.length, seed)]);
  const at = Math.min(step.at, content.length);
  if (step.kind === "cut") return content.subarray(0, at);
  const news = random(step.length, seed);
  const after = content.subarray(step.kind === "edit" ? at + news.length : at);
  return Buffer.concat([content.subarray(0, at), news, after]);
}

test("a delta's pieces make up the new content, whatever changed", () => {
  fc.assert(
    fc.property(
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 100 * KIB }), { maxLength: 80 }),
      fc.integer({ min: 1000, max: 1024 * KIB }),
      (steps, lengths, chunkBytes) => {
        let content = BASE;
        for (const [n, step] of steps.entries()) content = changed(content, step, n + 2);
        const base = baseFor(BASE, lengths);
        const delta = compare(base, content, chunkBytes);
        if (!delta) return;
        expect(delta.base).toBe(sha256(BASE));
        expect(applied(BASE, content, delta).equals(content)).toBe(true);
        expect(delta.fresh.length).toBeLessThan(content.length * 0.75);
        // The same as extents: each slice where it was, what is new behind it.
        const fresh = { blob: "f", offset: 0, length: delta.fresh.length };
        const extents = extentsOf(delta.pieces, base.extents, fresh);
        expect(extents.length).toBe(delta.extents);
        const news = Buffer.concat(
          delta.fresh.ranges.map(({ offset, length }) => content.subarray(offset, offset + length)),
        );
        const built = extents.map((extent) =>
          (extent.blob === "f" ? news : BASE).subarray(
            extent.offset,
            extent.offset + extent.length,
          ),
        );
        expect(Buffer.concat(built).equals(content)).toBe(true);
      },
    ),
    { numRuns: 150 },
  );
});

test.each<
  [what: string, change: (base: Buffer) => Buffer, comesTo: [fresh: number, pieces: number]]
>([
  ["an append", (base) => Buffer.concat([base, Buffer.alloc(1000, "x")]), [1000, 2]],
  [
    "an append to whole blocks",
    (base) => Buffer.concat([base.subarray(0, 640 * KIB), Buffer.alloc(7)]),
    [7, 2],
  ],
  ["an edit", (base) => edited(base, 200 * KIB, 10), [BLOCK_BYTES, 3]],
  ["an edit over two blocks", (base) => edited(base, 128 * KIB - 1, 2), [2 * BLOCK_BYTES, 3]],
  ["an edit at the start", (base) => edited(base, 0, 1), [BLOCK_BYTES, 2]],
  ["an edit at the end", (base) => edited(base, base.length - 1, 1), [60 * KIB + 123, 2]],
  ["a cut between blocks", (base) => base.subarray(0, 640 * KIB), [0, 1]],
  ["a cut within a block", (base) => base.subarray(0, 640 * KIB + 9), [9, 2]],
])("%s brings as much as it must", (_, change, [fresh, pieces]) => {
  // Whole blocks of what it is compared with, where the case says so.
  const content = change(BASE);
  const base = content.length === 640 * KIB + 7 ? BASE.subarray(0, 640 * KIB) : BASE;
  const delta = compare(baseFor(base), content);
  expect(delta?.fresh.length).toBe(fresh);
  expect(delta?.pieces.length).toBe(pieces);
});

function edited(base: Buffer, offset: number, length: number): Buffer {
  const next = Buffer.from(base);
  for (let n = offset; n < offset + length; n += 1) next[n] = 255 - (next[n] ?? 0);
  return next;
}

test("what has little in common with its base, or is small, is sent whole", () => {
  const base = baseFor(BASE);
  expect(compare(base, random(700 * KIB, 9))).toBeUndefined();
  expect(compare(base, BASE.subarray(0, MIN_BLOCKS_BYTES - 1))).toBeUndefined();
  expect(compare(base, Buffer.concat([Buffer.from("x"), BASE]))).toBeUndefined();
  expect(compare(base, Buffer.concat([BASE, random(2200 * KIB, 9)]))).toBeUndefined();
});

test("much that is new is named by where it stands, and not held", () => {
  const large = Buffer.concat([BASE, BASE, BASE]);
  const content = Buffer.concat([large, random(600 * KIB, 9)]);
  const delta = compare(baseFor(large), content);
  expect(delta?.fresh).toMatchObject({
    length: 600 * KIB,
    bytes: undefined,
    ranges: [{ offset: large.length, length: 600 * KIB }],
  });
});

test("many small extents at the end become one again, and never are more than 32", () => {
  let extents: Extent[] = [{ blob: "b", offset: 0, length: BASE.length }];
  let content: Buffer = BASE;
  let sent = 0;
  for (let n = 1; n <= 200; n += 1) {
    const base = { ...baseFor(content), extents };
    content = Buffer.concat([content, random(KIB, n)]);
    const delta = compare(base, content);
    if (!delta) throw new Error("no delta");
    sent += delta.fresh.length;
    extents = extentsOf(delta.pieces, extents, { commit: n, member: "d", offset: 0, length: 0 });
    const small = extents.filter(({ length }) => length < BLOCK_BYTES).length;
    expect(small).toBeLessThanOrEqual(33);
  }
  expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(content.length);
  expect(extents.length).toBeLessThan(40);
  expect(sent).toBeLessThan(3 * 200 * KIB);
});

test("what would be in too many pieces is sent whole", () => {
  const blocks = 3 * MAX_EXTENTS;
  const hash = (n: number): Uint8Array => new Uint8Array(16).fill(n % 251);
  const base = {
    sha256: "0".repeat(64),
    size: blocks * BLOCK_BYTES,
    blocks: new Uint8Array(blocks * 16).fill(7),
    extents: [{ blob: "b", offset: 0, length: blocks * BLOCK_BYTES }],
  };
  const block = new Uint8Array(BLOCK_BYTES);
  const compareEvery = (nth: number): Delta | undefined => {
    const finder = new DeltaFinder(base, base.size);
    for (let n = 0; n < blocks; n += 1) finder.add(block, hash(n % nth === 0 ? 8 : 7));
    return finder.finish();
  };
  expect(compareEvery(9)?.extents).toBeLessThanOrEqual(MAX_EXTENTS);
  expect(compareEvery(5)).toBeUndefined();
});

test("slices that go on in the same object are one", () => {
  const extents: Extent[] = [
    { blob: "a", offset: 5, length: 10 },
    { blob: "a", offset: 15, length: 10 },
    { part: "p", member: "m", offset: 0, length: 10 },
  ];
  const fresh = { commit: 9, member: "d", offset: 0, length: 4 };
  expect(
    extentsOf(
      [
        { from: "base", offset: 2, length: 20 },
        { from: "new", offset: 0, length: 3 },
        { from: "new", offset: 3, length: 1 },
        { from: "base", offset: 25, length: 2 },
      ],
      extents,
      fresh,
    ),
  ).toEqual([
    { blob: "a", offset: 7, length: 18 },
    { part: "p", member: "m", offset: 0, length: 2 },
    { commit: 9, member: "d", offset: 0, length: 4 },
    { part: "p", member: "m", offset: 5, length: 2 },
  ]);
  expect(() => extentsOf([{ from: "base", offset: 25, length: 6 }], extents, fresh)).toThrow();
});

test("an entry can be built upon where its blocks are known and its content is there", () => {
  const known = baseFor(BASE);
  const { blocks, ...content } = known;
  const rest = { path: "a", mode: 0, mtimeNs: "1", extents: [...content.extents] };
  const entry = { type: "file", ...content, ...rest } as const;
  const item = { entry, stamp: "s", racy: false, blocks };
  expect(baseOf(item)).toEqual(known);
  expect(baseOf(undefined)).toBeUndefined();
  expect(baseOf({ ...item, blocks: undefined })).toBeUndefined();
  expect(baseOf({ ...item, blocks: blocks.subarray(16) })).toBeUndefined();
  expect(baseOf({ ...item, stamp: UNRESTORED })).toBeUndefined();
  expect(baseOf({ ...item, entry: { ...entry, extents: [] } })).toBeUndefined();
});
