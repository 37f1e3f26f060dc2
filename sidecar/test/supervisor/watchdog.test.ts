import { expect, setDefaultTimeout, test } from "bun:test";

import { stalledTicks } from "../../src/supervisor/watchdog.ts";
import { SEATS, isolate } from "../support/namespace.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

test.concurrent.each(SEATS)("Watchdog ends a hanging process as %s", async (seat) => {
  await using run = isolate("watchdog-main.ts", { seat, args: ["hang", "500"] });
  expect(await run.exited).toBe(137);
  expect(run.events.at(-1)).toMatchObject({ level: "error", part: "watchdog", limitMs: 500 });
});

test.concurrent.each(["live", "stopped"])(
  "Watchdog leaves a process alone that is %s",
  async (mode) => {
    await using run = isolate("watchdog-main.ts", { seat: "subreaper", args: [mode, "1500"] });
    expect(await run.exited).toBe(0);
    expect(run.events.at(-1)).toEqual({ event: "alive" });
  },
);

test.concurrent("Watchdog does not take a suspended process for a hanging one", async () => {
  await using run = isolate("watchdog-main.ts", { seat: "subreaper", args: ["live", "1500"] });
  await until(() => run.events.length > 0, "the fixture to be ready");
  const pid = await run.pid();
  process.kill(pid, "SIGSTOP");
  const stopped = performance.now();
  await until(() => performance.now() - stopped > 3_000, "twice the limit");
  process.kill(pid, "SIGCONT");
  expect(await run.exited).toBe(0);
});

test.each([
  [1_000, 1],
  [1_500, 1.5],
  [2_000, 2],
  [3_600_000, 2],
])("stalledTicks counts %d ms between two looks as %d ticks", (elapsed, expected) => {
  expect(stalledTicks(elapsed, 1_000)).toBe(expected);
});
