import { expect, test } from "bun:test";

import {
  NO_DEATHS,
  TRIAL,
  afterDeath,
  delayAfter,
  type Deaths,
} from "../../src/supervisor/backoff.ts";

test.each([
  [1, 0, 500],
  [2, 0, 1_000],
  [3, 0, 2_000],
  [7, 0, 30_000],
  [50, 0, 30_000],
  [2_000, 0, 30_000],
  [1, 0.5, 525],
  [7, 0.999_999, 33_000],
])("delayAfter death %d in a row with chance %d is %d ms", (row, random, expected) => {
  expect(delayAfter(row, random)).toBe(expected);
});

function die(deaths: Deaths, at: number, options: { upMs?: number; grows?: boolean } = {}) {
  return afterDeath(deaths, { at, upMs: 0, grows: true, random: 0, ...options });
}

test("afterDeath doubles the delay with each death in a row", () => {
  const delays: number[] = [];
  let deaths = NO_DEATHS;
  for (const at of [0, 20_000, 40_000, 60_001]) {
    const next = die(deaths, at);
    deaths = next.deaths;
    if (next.sequel.kind === "again") delays.push(next.sequel.delayMs);
  }
  expect(delays).toEqual([500, 1_000, 2_000, 4_000]);
});

test("afterDeath starts over when the child had been up for 30 s", () => {
  const first = die(NO_DEATHS, 0).deaths;
  const second = die(first, 100_000, { upMs: 29_999 });
  expect(second.sequel).toEqual({ kind: "again", delayMs: 1_000 });
  const third = die(second.deaths, 200_000, { upMs: 30_000 });
  expect(third.sequel).toEqual({ kind: "again", delayMs: 500 });
});

test("afterDeath calls five deaths within a minute a loop, and not five in more", () => {
  let deaths = NO_DEATHS;
  for (const at of [0, 1_000, 2_000, 3_000]) deaths = die(deaths, at).deaths;
  expect(die(deaths, 59_999).sequel).toEqual({ kind: "loop", words: "5 times within 60 s" });
  expect(die(deaths, 60_000).sequel.kind).toBe("again");
});

test("afterDeath counts an end the child wanted towards the loop but not towards the delay", () => {
  let deaths = NO_DEATHS;
  for (const at of [0, 1_000, 2_000, 3_000]) {
    const next = die(deaths, at, { grows: false });
    expect(next.sequel).toEqual({ kind: "again", delayMs: 500 });
    deaths = next.deaths;
  }
  expect(die(deaths, 4_000, { grows: false }).sequel.kind).toBe("loop");
});

test("afterDeath fails a trial at its first early death, and forgets it after 30 s up", () => {
  expect(die(TRIAL, 0, { upMs: 29_999 }).sequel.kind).toBe("loop");
  expect(die(TRIAL, 0, { upMs: 30_000 }).sequel).toEqual({ kind: "again", delayMs: 500 });
});
