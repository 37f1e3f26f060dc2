import { expect, test } from "bun:test";

import { findOpenclaw, openclawSpec } from "../../src/gateway/openclaw-spec.ts";
import { systemClock } from "../../src/platform/clock.ts";
import type { Exit, ServiceSpec } from "../../src/supervisor/spec.ts";
import { capturedLog } from "../support/captured-log.ts";
import { tempDir } from "../support/temp-dir.ts";

interface SpecOptions {
  readonly cured?: boolean;
  readonly diskFull?: boolean;
  readonly trouble?: string;
  readonly port?: number;
}

function specWith(options: SpecOptions = {}): { spec: ServiceSpec; cures: string[] } {
  const cures: string[] = [];
  const spec = openclawSpec({
    node: "/node",
    entry: "/openclaw.mjs",
    heapMb: 1_200,
    port: options.port ?? 1,
    dataDir: "/nowhere",
    env: {},
    user: { uid: 1_000, gid: 1_000 },
    session: {
      start: () => undefined,
      stop: async () => undefined,
      request: () => Promise.reject(new Error("not connected")),
      identity: undefined,
      phase: undefined,
      trouble: options.trouble,
    },
    prepare: async () => undefined,
    onAdmitted: async () => undefined,
    cure: async (refusal) => {
      cures.push(refusal);
      return options.cured ?? false;
    },
    isDiskFull: () => options.diskFull ?? false,
    clock: systemClock,
    log: capturedLog(),
  });
  return { spec, cures };
}

const exit: Exit = {
  code: undefined,
  signal: undefined,
  asked: false,
  oomKilled: false,
  upMs: 60_000,
  lastLines: [],
};
const config = { ...exit, code: 78, lastLines: ['<root>: Unrecognized key: "frobnicate"'] };
const child = { pid: 1, signal: () => undefined, exited: new Promise<void>(() => undefined) };

test.each([
  ["an end without a reason", { ...exit, code: 0 }, "restart"],
  ["an error", { ...exit, code: 1 }, "backoff"],
  ["a kill", { ...exit, signal: "SIGKILL" }, "backoff"],
  ["a crash", { ...exit, code: 139 }, "backoff"],
  ["want of memory", { ...exit, signal: "SIGKILL", oomKilled: true }, "backoff"],
  ["another owner", { ...exit, code: 78, lastLines: ["owns gateway-lifecycle"] }, "backoff"],
  ["a refusal that nothing cures", config, "failed"],
  ["a refusal that nobody knows", { ...exit, code: 78 }, "failed"],
])("after %s comes what can help", async (_name, given, expected) => {
  expect(await specWith().spec.judge?.(given)).toMatchObject({ kind: expected as "failed" });
});

test("a refusal is cured once", async () => {
  const { spec, cures } = specWith({ cured: true });
  expect(await spec.judge?.(config)).toMatchObject({ kind: "restart" });
  expect(await spec.judge?.(config)).toMatchObject({ kind: "failed" });
  expect(cures).toEqual(["config"]);
});

test("the gateway is started directly, with its heap as an argument", async () => {
  const launch = await specWith().spec.launch(new AbortController().signal);
  const flags = ["--disable-sigusr1", "--max-old-space-size=1200"];
  expect(launch.command).toEqual(["/node", ...flags, "/openclaw.mjs", "gateway", "run"]);
  expect(launch.user).toEqual({ uid: 1_000, gid: 1_000 });
  expect(launch.oomScoreAdj).toBeGreaterThan(0);
});

test.each([
  [{ trouble: "session: no answer" }, "session: no answer"],
  [{ trouble: "session: no answer", diskFull: true }, undefined],
  [{}, undefined],
])(
  "a gateway that answers HTTP is as alive as its session, unless the disk is full: %j",
  async (options, expected) => {
    await using server = serve({ ok: true, status: "live" });
    const { spec } = specWith({ ...options, port: server.port });
    const answer = await spec.liveness?.probe(child, AbortSignal.timeout(5_000));
    expect(answer).toBe(expected as string);
  },
);

test.each([
  [200, { ok: true, status: "started" }, undefined],
  [503, { ok: false, status: "starting" }, "starting"],
  [503, { ok: false, status: "draining" }, "draining"],
  [200, "<html>", "/startupz answers 200"],
  [200, { ok: true }, "/startupz answers 200"],
])("an answer of %i with %j is an admission or not", async (status, body, expected) => {
  await using server = serve(body, status);
  const { spec } = specWith({ port: server.port });
  const answer = await spec.admission?.probe(child, AbortSignal.timeout(5_000));
  expect(answer).toBe(expected as string);
});

test("a missing OpenClaw is named", () => {
  using dir = tempDir();
  expect(() => findOpenclaw(dir.path)).toThrow(`Cannot find OpenClaw in "${dir.path}"`);
});

function serve(body: unknown, status = 200) {
  const fetch = (): Response =>
    typeof body === "string" ? new Response(body, { status }) : Response.json(body, { status });
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch });
  return { port: server.port ?? 0, [Symbol.asyncDispose]: () => server.stop(true) };
}
