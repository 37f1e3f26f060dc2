import { expect, test } from "bun:test";

import { stopBudget } from "../src/stop-budget.ts";

test("stopBudget() at 120 s gives the gateway 76 s and the last commit 25 s", () => {
  expect(stopBudget(120_000)).toEqual({
    caddyMs: 5_000,
    gatewayMs: 76_000,
    sweepMs: 1_000,
    commitMs: 25_000,
    exitMs: 117_000,
  });
});

test.each([30, 40, 60, 90, 120, 300])(
  "stopBudget() at %d s ends 3 s early and keeps 10 s for the commit",
  (seconds) => {
    const budget = stopBudget(seconds * 1_000);
    expect(budget.exitMs).toBe(seconds * 1_000 - 3_000);
    expect(budget.commitMs).toBeGreaterThanOrEqual(10_000);
    expect(budget.gatewayMs + budget.sweepMs + budget.commitMs).toBeLessThan(budget.exitMs);
  },
);
