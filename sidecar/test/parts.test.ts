import { expect, test } from "bun:test";

import { Parts, type Part } from "../src/parts.ts";
import { capturedLog } from "./support/captured-log.ts";
import { until } from "./support/until.ts";

const NEVER = new AbortController().signal;

/** A part that writes down what happens to it. */
function part(name: string, history: string[], overrides: Partial<Part> = {}): Part {
  return {
    name,
    start: async () => void history.push(`start ${name}`),
    stop: async () => void history.push(`stop ${name}`),
    ...overrides,
  };
}

test("Parts starts in order and stops by stages", async () => {
  const history: string[] = [];
  const parts = new Parts(
    [part("a", history), part("b", history), part("c", history)],
    capturedLog(),
  );
  await parts.start(NEVER);
  await parts.stop(
    [
      { parts: ["b", "a"], budgetMs: 1_000 },
      { parts: ["c"], budgetMs: 1_000 },
    ],
    NEVER,
  );
  expect(history).toEqual(["start a", "start b", "start c", "stop a", "stop b", "stop c"]);
});

test("Parts stops what was begun when it is stopped in the middle of a start, and nothing else", async () => {
  const history: string[] = [];
  const waits = part("b", history, {
    start: (signal) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason as Error)),
      ),
  });
  const parts = new Parts([part("a", history), waits, part("c", history)], capturedLog());
  const stop = new AbortController();
  const starting = parts.start(stop.signal);
  await until(() => history.includes("start a"), "a has started");
  stop.abort(new Error("stop"));
  await expect(starting).rejects.toThrow("stop");
  await parts.stop([{ parts: ["a", "b", "c"], budgetMs: 1_000 }], NEVER);
  expect(history).toEqual(["start a", "stop a", "stop b"]);
});

test("Parts goes on stopping when a part fails to stop, or never ends", async () => {
  const history: string[] = [];
  const log = capturedLog();
  const parts = new Parts(
    [
      part("throws", history, { stop: () => Promise.reject(new Error("no")) }),
      part("hangs", history, { stop: () => new Promise(() => undefined) }),
      part("last", history),
    ],
    log,
  );
  await parts.start(NEVER);
  await parts.stop(
    [
      { parts: ["throws", "hangs"], budgetMs: 10 },
      { parts: ["last"], budgetMs: 1_000 },
    ],
    NEVER,
  );
  expect(history.at(-1)).toBe("stop last");
  expect(log.lines.filter((line) => line["level"] === "error").map((line) => line["part"])).toEqual(
    ["throws", "hangs"],
  );
});

test("Parts tells a part to hurry", async () => {
  const hurry = new AbortController();
  const slow = part("slow", [], {
    stop: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve())),
  });
  const parts = new Parts([slow], capturedLog());
  await parts.start(NEVER);
  const stopped = parts.stop([{ parts: ["slow"], budgetMs: 60_000 }], hurry.signal);
  hurry.abort(new Error("now"));
  await stopped;
});
