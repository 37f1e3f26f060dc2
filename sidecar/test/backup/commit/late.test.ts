import { expect, test } from "bun:test";

import { LateReadings } from "../../../src/backup/commit/late.ts";
import type { DirtyItem } from "../../../src/backup/notice/dirty.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { changedFile, gone } from "../../support/readings.ts";

const item = (path: string): DirtyItem => ({ path, kind: "path", since: 0 });
const passed = Promise.resolve();

function create() {
  let done = 0;
  const late = new LateReadings({
    isDatabase: (path) => path.endsWith(".db"),
    onDone: () => (done += 1),
  });
  /** A reading that ends when it is told to, and what was made of it until the deadline. */
  const begin = (path: string) => {
    const { promise, resolve, reject } = Promise.withResolvers<Reading>();
    const inTime = late.inTime(item(path), { reading: promise, deadline: passed });
    return { inTime, resolve, reject };
  };
  return { late, begin, done: () => done };
}

test("LateReadings hands out what came late once, with what waited behind it", async () => {
  const { late, begin, done } = create();
  const slow = begin("a.db");
  expect(await slow.inTime).toBeUndefined();
  const again = item("a.db");
  expect([late.holds(again), late.holds(item("b.db"))]).toEqual([true, false]);
  expect([late.size, late.hasDone, late.take()]).toEqual([1, false, []]);
  slow.resolve(gone("a.db"));
  await late.end();
  const other = create();
  const second = other.begin("a.db");
  await second.inTime;
  other.late.holds(again);
  second.reject(new Error("too many open files"));
  await new Promise((resolve) => setImmediate(resolve));
  expect(other.late.take()).toMatchObject([
    { item: { path: "a.db" }, error: { message: "too many open files" }, behind: [again] },
  ]);
  expect([other.late.size, other.late.hasDone, other.done(), done()]).toEqual([0, false, 1, 1]);
});

test("LateReadings lets a batch wait for the files of which too many are late, and never for a few databases", async () => {
  const { begin } = create();
  const files = Array.from({ length: 5 }, (_, n) => begin(`${n}.bin`));
  const databases = Array.from({ length: 20 }, (_, n) => begin(`${n}.db`));
  for (const { inTime } of [...files.slice(0, 4), ...databases])
    expect(await inTime).toBeUndefined();
  const last = files[4];
  last?.resolve(gone("4.bin"));
  expect(await last?.inTime).toEqual(gone("4.bin"));
});

test("LateReadings gives back what comes after its end", async () => {
  const { late, begin } = create();
  const [first, second] = [begin("a.bin"), begin("b.bin")];
  await Promise.all([first.inTime, second.inTime]);
  let open = 2;
  const reading = (path: string): Reading =>
    changedFile(path, "x".repeat(100_000), { onDispose: () => void (open -= 1) });
  first.resolve(reading("a.bin"));
  await new Promise((resolve) => setImmediate(resolve));
  const ended = late.end();
  second.resolve(reading("b.bin"));
  await ended;
  expect([open, late.size]).toEqual([0, 0]);
});
