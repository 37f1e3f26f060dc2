import { expect, test } from "bun:test";

import { StateHistory, machineState } from "../../src/health/reasons.ts";
import { ManualClock } from "../support/manual-clock.ts";

const CAUSE = { part: "backup", kind: "unreachable", message: "The store does not answer" };

test.each([
  ["booting", { stopping: false, restoring: false, booted: false, causes: [] }],
  ["booting", { stopping: false, restoring: false, booted: false, causes: [CAUSE] }],
  ["restoring", { stopping: false, restoring: true, booted: false, causes: [] }],
  ["ready", { stopping: false, restoring: false, booted: true, causes: [] }],
  ["degraded", { stopping: false, restoring: false, booted: true, causes: [CAUSE] }],
  ["stopping", { stopping: true, restoring: true, booted: true, causes: [CAUSE] }],
] as const)("machineState() is %s for %j", (state, inputs) => {
  expect(machineState(inputs)).toBe(state);
});

test("StateHistory keeps since when a cause holds while it holds, and forgets it after", async () => {
  const clock = new ManualClock(0);
  const history = new StateHistory(clock);
  const inputs = { stopping: false, restoring: false, booted: true, causes: [CAUSE] };
  expect(history.update(inputs)).toMatchObject({ before: "booting", appeared: [CAUSE], gone: [] });
  await clock.advance(5_000);
  expect(history.update({ ...inputs, causes: [{ ...CAUSE, message: "Still" }] })).toEqual({
    before: undefined,
    appeared: [],
    gone: [],
  });
  expect(history.reasons[0]?.since).toBe(new Date(0).toISOString());
  expect(history.update({ ...inputs, causes: [] })).toMatchObject({
    before: "degraded",
    appeared: [],
    gone: [{ part: "backup", kind: "unreachable" }],
  });
  expect(history.since).toBe(new Date(5_000).toISOString());
  history.update(inputs);
  const other = { ...CAUSE, part: "gateway" };
  expect(history.update({ ...inputs, causes: [CAUSE, other] })).toMatchObject({
    before: undefined,
    appeared: [other],
  });
  expect(history.reasons[0]?.since).toBe(new Date(5_000).toISOString());
});
