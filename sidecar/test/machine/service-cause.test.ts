import { expect, test } from "bun:test";

import { serviceCause } from "../../src/machine/service-cause.ts";
import type { ServiceStatus } from "../../src/supervisor/spec.ts";

const RUNNING: ServiceStatus = {
  name: "gateway",
  state: "running",
  pid: 7,
  since: 0,
  restarts: 0,
  lastExit: undefined,
  ready: true,
  reason: undefined,
  memoryBytes: undefined,
};
const DIED = { at: 0, reason: "died of SIGKILL" };

test.each([
  ["initial", { ready: false }],
  ["running", {}],
  ["running", { lastExit: DIED }],
] as const)("a service that is %s with %p is no cause", (state, fields) => {
  expect(serviceCause({ ...RUNNING, state, ...fields })).toBeUndefined();
});

test.each([
  {
    is: { state: "starting", reason: "it is starting", lastExit: DIED },
    says: { kind: "not_ready", words: ["it is starting", "died of SIGKILL"] },
  },
  {
    is: { state: "running", reason: "not alive: no answer" },
    says: { kind: "not_ready", words: ["not alive: no answer"] },
  },
  {
    is: { state: "backoff", reason: "died of SIGKILL", lastExit: DIED },
    says: { kind: "not_ready", words: ["died of SIGKILL", "started again"] },
  },
  {
    is: { state: "stopping", reason: "not alive: no answer" },
    says: { kind: "not_ready", words: ["not alive: no answer"] },
  },
  {
    is: { state: "stopped", reason: "asked to stop", lastExit: DIED },
    says: { kind: "stopped", words: ["asked to stop"] },
  },
  {
    is: { state: "failed", reason: "exited with 1", lastExit: DIED },
    says: { kind: "failed", words: ["exited with 1", "/services/gateway/restart"] },
  },
] as const)("a service says why it is not ready and what follows: $is.state", ({ is, says }) => {
  const cause = serviceCause({ ...RUNNING, ready: false, ...is });

  expect(cause).toMatchObject({ part: "gateway", kind: says.kind });
  for (const word of says.words) expect(cause?.message).toContain(word);
});
