import { expect, test } from "bun:test";

import { classifyExit } from "../../src/gateway/exit.ts";

const exit = { code: undefined, signal: undefined, oomKilled: false, lastLines: [] };

test.each([
  [{ code: 0 }, { kind: "done" }],
  [{ code: 1 }, { kind: "failed", reason: "exited with 1" }],
  [{ code: 137 }, { kind: "killed", reason: "died of SIGKILL" }],
  [{ code: 139 }, { kind: "killed", reason: "died of SIGSEGV" }],
  [{ signal: "SIGKILL" }, { kind: "killed", reason: "died of SIGKILL" }],
  [{ signal: "SIGTERM" }, { kind: "killed", reason: "died of SIGTERM" }],
  [
    { signal: "SIGKILL", oomKilled: true },
    { kind: "killed", reason: "killed for want of memory" },
  ],
  [{ code: 78 }, { kind: "refused", refusal: "unknown" }],
])("an exit of %j is %j", (given, expected) => {
  expect(classifyExit({ ...exit, ...given })).toEqual(expected as ReturnType<typeof classifyExit>);
});

const MIGRATION =
  "[gateway] requires state migration. Stop the service with openclaw gateway stop, then run openclaw doctor --fix.";

test.each([
  [
    "owner",
    "Doctor could not enter maintenance. StateDatabaseCoordinatorContentionError: another OpenClaw process owns gateway-lifecycle",
  ],
  [
    "config",
    'Gateway failed to start: Invalid config at /data/openclaw/openclaw.json:\n<root>: Unrecognized key: "frobnicate"',
  ],
  [
    "config",
    "Gateway start blocked: existing config is missing gateway.mode. Treat this as suspicious or clobbered config.",
  ],
  ["config", "Missing config. Run `openclaw setup` or set gateway.mode=local."],
  [
    "permission",
    "Doctor cannot repair this state: shared state database is unreadable at /data/openclaw/state/openclaw.sqlite: EACCES: permission denied, stat",
  ],
  [
    "corrupt",
    "Doctor cannot repair this state: shared state database is unreadable at /data/openclaw/state/openclaw.sqlite: database disk image is malformed.",
  ],
  [
    "newer_schema",
    "OpenClaw state database /data/openclaw/state/openclaw.sqlite uses newer schema version 999; this build supports 18.",
  ],
  ["unknown", "something new"],
] as const)("exit 78 is classified by its text: %s", (refusal, text) => {
  const lastLines = [...text.split("\n"), MIGRATION];
  expect(classifyExit({ ...exit, code: 78, lastLines })).toEqual({ kind: "refused", refusal });
});
