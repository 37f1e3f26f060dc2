import { expect, test } from "bun:test";

import { DirtySet } from "../../../src/backup/notice/dirty.ts";
import { ManualClock } from "../../support/manual-clock.ts";

function create(options: { onDue?: () => void; maxFound?: number } = {}) {
  const clock = new ManualClock();
  return { clock, dirty: new DirtySet({ clock, ...options }) };
}

const paths = (items: readonly { path: string }[]) => items.map((item) => item.path);

test("DirtySet gives a path when it has been quiet for 300 ms", async () => {
  const { clock, dirty } = create();
  dirty.hint("a");
  await clock.advance(200);
  dirty.hint("a");
  await clock.advance(299);
  expect(dirty.take(10)).toEqual([]);
  await clock.advance(1);
  expect(dirty.take(10)).toEqual([{ path: "a", kind: "path", since: 0 }]);
  expect(dirty.take(10)).toEqual([]);
});

test("DirtySet gives a path that never rests 2 s after its first change", async () => {
  const { clock, dirty } = create();
  for (let at = 0; at < 2_000; at += 100) {
    dirty.hint("a");
    expect(dirty.take(10)).toEqual([]);
    await clock.advance(100);
  }
  expect(paths(dirty.take(10))).toEqual(["a"]);
});

test("DirtySet gives what a scan found at once, databases first, then the workspace", async () => {
  const { clock, dirty } = create();
  dirty.found(["home/x", "workspace/a", "openclaw/state/openclaw.sqlite", "openclaw/agents/m/t"]);
  dirty.hint("workspace/app.db");
  await clock.advance(300);
  expect(paths(dirty.take(4))).toEqual([
    "workspace/app.db",
    "openclaw/state/openclaw.sqlite",
    "openclaw/agents/m/t",
    "workspace/a",
  ]);
  expect(paths(dirty.take(4))).toEqual(["home/x"]);
});

test("DirtySet waits again for a found path that is being written, and keeps its age", async () => {
  const { clock, dirty } = create();
  dirty.found(["a"]);
  await clock.advance(100);
  dirty.hint("a");
  expect(dirty.take(1)).toEqual([]);
  await clock.advance(300);
  expect(dirty.take(1)).toEqual([{ path: "a", kind: "path", since: 0 }]);
});

test("DirtySet takes a folder for its paths after 128 of them", async () => {
  const { clock, dirty } = create();
  for (let i = 0; i < 128; i += 1) dirty.hint(`d/${i}`);
  dirty.hint("other");
  expect(dirty.size).toBe(129);
  dirty.hint("d/128");
  expect(dirty.size).toBe(2);
  dirty.hint("d/e/f");
  expect(dirty.size).toBe(2);
  await clock.advance(300);
  expect(dirty.take(10)).toEqual([
    { path: "other", kind: "path", since: 0 },
    { path: "d", kind: "tree", since: 0 },
  ]);
});

test("DirtySet merges the deepest paths into their folders after 512", () => {
  const { dirty } = create();
  for (let i = 0; i <= 512; i += 1) dirty.hint(`a/${i % 64}/b/${i}`);
  dirty.hint("z");
  expect(dirty.size).toBeLessThanOrEqual(257);
});

test("DirtySet stays small and covers every path, whatever happens", async () => {
  const { clock, dirty } = create();
  const all: string[] = [];
  for (let i = 0; i < 5_000; i += 1) {
    const path = [i % 7, i % 31, i % 101, i].slice(i % 4).join("/");
    all.push(path);
    dirty.hint(path, i % 50 === 0 ? "tree" : "path");
    expect(dirty.size).toBeLessThanOrEqual(512);
  }
  await clock.advance(2_000);
  const taken = dirty.take(10_000);
  for (const path of all) {
    const covered = taken.some(
      (item) =>
        item.path === path ||
        (item.kind === "tree" && (item.path === "" || path.startsWith(`${item.path}/`))),
    );
    if (!covered) throw new Error(`${path} is covered by nothing`);
  }
  expect(dirty.size).toBe(0);
});

test("DirtySet does not merge what a scan found", () => {
  const { dirty } = create();
  dirty.found(Array.from({ length: 2_000 }, (_, i) => `d/${i}`));
  expect(dirty.size).toBe(2_000);
  expect(dirty.take(5_000).every((item) => item.kind === "path")).toBe(true);
});

test("DirtySet asks for a scan of everything, last, where more was found than it keeps", () => {
  const { dirty } = create({ maxFound: 100 });
  dirty.found(Array.from({ length: 150 }, (_, i) => `d/${i}`));
  const first = dirty.take(1_000);
  expect(first.length).toBe(100);
  dirty.settled(first);
  expect(dirty.take(1_000)).toEqual([{ path: "", kind: "tree", since: 0 }]);
  expect(dirty.take(1_000)).toEqual([]);
});

test("DirtySet knows the age of the oldest change that is not durable", async () => {
  const { clock, dirty } = create();
  expect(dirty.lagMs).toBe(0);
  dirty.hint("a");
  await clock.advance(400);
  const taken = dirty.take(1);
  dirty.hint("a");
  await clock.advance(600);
  expect(dirty.lagMs).toBe(1_000);
  dirty.putBack(taken);
  await clock.advance(1_000);
  const again = dirty.take(1);
  expect(again).toEqual([{ path: "a", kind: "path", since: 0 }]);
  expect(dirty.lagMs).toBe(2_000);
  dirty.settled(again);
  expect(dirty.lagMs).toBe(0);
});

test("DirtySet gives what was put back after the delay, as old as it was", async () => {
  const { clock, dirty } = create();
  dirty.hint("t", "tree");
  dirty.hint("p");
  await clock.advance(300);
  dirty.putBack(dirty.take(2), 5_000);
  await clock.advance(4_999);
  expect(dirty.take(2)).toEqual([]);
  await clock.advance(1);
  expect(dirty.take(2)).toEqual([
    { path: "t", kind: "tree", since: 0 },
    { path: "p", kind: "path", since: 0 },
  ]);
});

test("DirtySet lets a path rest, and does not forget it", async () => {
  const { clock, dirty } = create();
  dirty.rest("big.db", 10_000);
  dirty.hint("big.db");
  dirty.found(["big2.db"]);
  dirty.rest("big2.db", 5_000);
  await clock.advance(4_999);
  expect(dirty.take(9)).toEqual([]);
  expect(dirty.nextDueMs()).toBe(1);
  await clock.advance(1);
  expect(paths(dirty.take(9))).toEqual(["big2.db"]);
  await clock.advance(5_000);
  expect(paths(dirty.take(9))).toEqual(["big.db"]);
});

test("DirtySet gives whatever waits when all of it is asked for", () => {
  const { dirty } = create();
  dirty.hint("a");
  dirty.hint("t", "tree");
  dirty.found(["big.db"]);
  dirty.rest("big.db", 10_000);
  expect(dirty.take(2, { also: () => true }).length).toBe(2);
  expect(dirty.take(9, { also: () => true }).length).toBe(1);
  expect(dirty.size).toBe(0);
});

test("DirtySet says once that something is due", async () => {
  let calls = 0;
  const { clock, dirty } = create({ onDue: () => (calls += 1) });
  dirty.hint("a");
  await clock.advance(200);
  dirty.hint("a");
  await clock.advance(299);
  expect(calls).toBe(0);
  await clock.advance(1);
  expect(calls).toBe(1);
  dirty.hint("b");
  await clock.advance(5_000);
  expect(calls).toBe(1);
  expect(paths(dirty.take(1))).toEqual(["a"]);
  await clock.advance(0);
  expect(calls).toBe(2);
  expect(paths(dirty.take(1))).toEqual(["b"]);
  await clock.advance(5_000);
  expect(calls).toBe(2);
  dirty.found(["c"]);
  await clock.advance(0);
  expect(calls).toBe(3);
  dirty.close();
  await clock.advance(5_000);
  expect(calls).toBe(3);
});
