import { expect, test } from "bun:test";

import { MassDeletion } from "../../../src/backup/commit/mass-deletion.ts";

test.each([
  { count: 50, known: 60, many: false },
  { count: 51, known: 60, many: true },
  { count: 300, known: 1_000, many: false },
  { count: 301, known: 1_000, many: true },
])("$count deletions of $known entries are a mass deletion: $many", ({ count, known, many }) => {
  const mass = new MassDeletion();
  const told = mass.note({ at: 0, count, known, position: 7 });
  expect(told).toEqual(many ? { position: 7, count } : undefined);
});

test("deletions within a minute count together, and are told once, with the position before the first", () => {
  const mass = new MassDeletion();
  const note = (at: number, known: number, position: number) =>
    mass.note({ at, count: 40, known, position });
  expect(note(0, 100, 7)).toBeUndefined();
  expect(note(20_000, 60, 8)).toEqual({ position: 7, count: 80 });
  expect(note(40_000, 20, 9)).toBeUndefined();
  expect(note(200_000, 100, 20)).toBeUndefined();
  expect(note(201_000, 60, 21)).toEqual({ position: 20, count: 80 });
});

test("deletions that are far apart do not count together", () => {
  const mass = new MassDeletion();
  for (let n = 0; n < 20; n += 1)
    expect(mass.note({ at: n * 61_000, count: 40, known: 100, position: n })).toBeUndefined();
});
