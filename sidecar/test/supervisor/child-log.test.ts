import { expect, test } from "bun:test";

import { ChildLog, type ServiceLine } from "../../src/supervisor/child-log.ts";
import { ManualClock } from "../support/manual-clock.ts";

function setup() {
  const clock = new ManualClock();
  const passed: ServiceLine[] = [];
  const log = new ChildLog("web", {
    clock,
    redact: (line) => line.replaceAll("hush", "***"),
    onLine: (line) => passed.push(line),
  });
  const out = log.open("stdout");
  const say = (text: string) => out.push(new TextEncoder().encode(`${text}\n`));
  return { clock, log, passed, say };
}

test("ChildLog passes a line on with its service, stream and time, redacted", () => {
  const { clock, log, passed, say } = setup();
  say("token hush");
  log.open("stderr").push(new TextEncoder().encode("oh\n"));
  expect(passed).toEqual([
    { service: "web", stream: "stdout", line: "token ***", at: clock.now() },
    { service: "web", stream: "stderr", line: "oh", at: clock.now() },
  ]);
  expect(log.recent(10)).toEqual(passed);
});

test("ChildLog passes 200 lines a second on and says how many it left out", async () => {
  const { clock, log, passed, say } = setup();
  for (let n = 0; n < 1_000; n += 1) say(`line ${n}`);
  expect(passed).toHaveLength(200);
  await clock.advance(1_000);
  expect(passed.at(-1)).toMatchObject({ dropped: 800, line: expect.stringContaining("800 lines") });
  say("later");
  expect(passed.at(-1)?.line).toBe("later");
  expect(log.recent(2).map(({ line }) => line)).toEqual(["line 999", "later"]);
});

test("ChildLog reports what it left out before the next line it passes", async () => {
  const { clock, passed, say } = setup();
  for (let n = 0; n < 250; n += 1) say("x");
  await clock.advance(999);
  say("lost");
  await clock.advance(1);
  say("next");
  expect(passed.slice(-2).map(({ line, dropped }) => dropped ?? line)).toEqual([51, "next"]);
  await clock.advance(10_000);
  expect(passed).toHaveLength(202);
});

test("ChildLog keeps the newest thousand lines or so, however many come", () => {
  const { log, say } = setup();
  for (let n = 0; n < 50_000; n += 1) say(String(n));
  const kept = log.recent(100_000).map(({ line }) => Number(line));
  expect(kept.length).toBeGreaterThanOrEqual(1_000);
  expect(kept.length).toBeLessThanOrEqual(2_000);
  expect(kept.at(-1)).toBe(49_999);
  expect(log.recent(3).map(({ line }) => line)).toEqual(["49997", "49998", "49999"]);
  expect(log.recent(0)).toEqual([]);
});

test("ChildLog keeps no more than about 2 MiB of long lines", () => {
  const { log, say } = setup();
  for (let n = 0; n < 2_000; n += 1) say("x".repeat(16_000));
  const characters = log.recent(100_000).reduce((sum, { line }) => sum + line.length, 0);
  expect(characters).toBeLessThanOrEqual(2.1 * 1024 * 1024);
  expect(characters).toBeGreaterThan(900 * 1024);
});

test("ChildLog tells the lines of one start from those before it", () => {
  const { log, say } = setup();
  say("before");
  const count = log.count;
  expect(log.lastSince(count)).toEqual([]);
  for (let n = 0; n < 60; n += 1) say(`hush ${n}`);
  expect(log.lastSince(count)).toHaveLength(50);
  expect(log.lastSince(count)[0]).toBe("*** 10");
});
