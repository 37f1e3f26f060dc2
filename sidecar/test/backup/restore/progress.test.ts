import { expect, test } from "bun:test";

import {
  ProgressMeter,
  progressLine,
  type Progress,
} from "../../../src/backup/restore/progress.ts";
import { ManualClock } from "../../support/manual-clock.ts";

test("the time left follows from the pace so far, once there is one", async () => {
  const clock = new ManualClock();
  const meter = new ProgressMeter(clock);
  meter.start({ files: 10, bytes: 10_000_000 });
  expect(meter.progress.etaS).toBeUndefined();
  meter.add(1_000_000);
  expect(meter.progress.etaS).toBeUndefined();
  await clock.advance(2_000);
  expect(meter.progress.etaS).toBe(18);
  for (let n = 0; n < 9; n += 1) meter.add(1_000_000);
  expect(meter.progress).toMatchObject({ filesDone: 10, bytesDone: 10_000_000, etaS: 0 });
});

test("progress is told at once, and then not for every file", async () => {
  const clock = new ManualClock();
  const told: Progress[] = [];
  const meter = new ProgressMeter(clock, (progress) => told.push(progress));
  meter.start({ files: 1_000, bytes: 0 });
  for (let n = 0; n < 500; n += 1) meter.add(0);
  expect(told.length).toBe(1);
  await clock.advance(1_000);
  meter.add(0);
  meter.add(0);
  expect(told.map(({ filesDone }) => filesDone)).toEqual([0, 501]);
});

test.each([
  [{ etaS: 31 }, "1,200 of 10,000 files, 12.5 of 40.0 MiB, 31 s left"],
  [{ etaS: undefined }, "1,200 of 10,000 files, 12.5 of 40.0 MiB"],
])("progress %j is said for people", ({ etaS }, line) => {
  const mib = 1024 * 1024;
  const counts = { files: 10_000, filesDone: 1_200, bytes: 40 * mib, bytesDone: 12.5 * mib };
  expect(progressLine({ ...counts, etaS })).toBe(line);
});
