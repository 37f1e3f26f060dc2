import { expect, test } from "bun:test";

import { stopOpenclaw, type StopSession } from "../../src/gateway/openclaw-stop.ts";
import { ManualClock } from "../support/manual-clock.ts";

const ready = { status: "ready", suspensionId: "lease" };
const draining = { status: "draining", suspensionId: "lease" };

interface Scene {
  readonly budgetMs: number;
  readonly prepare?: unknown;
  /** When the running turn ends, in milliseconds from the stop; never by default. */
  readonly readyAfterMs?: number;
  /** When the gateway has started; at once by default. */
  readonly startedAfterMs?: number;
  readonly connected?: boolean;
  readonly handoff?: unknown;
  readonly exitAfterMs?: number;
}

/** Plays a stop; resolves with the path it took, when the SIGTERM came, and what was asked for until then. */
async function play(scene: Scene) {
  const clock = new ManualClock();
  const asked: string[] = [];
  let signalledAt: number | undefined;
  const exited = Promise.withResolvers<void>();
  const { readyAfterMs = Infinity, connected = true, prepare = draining } = scene;
  const session: StopSession = {
    start: () => undefined,
    get identity() {
      return connected ? { pid: 7, processInstanceId: "instance" } : undefined;
    },
    get phase() {
      return connected ? ("accepting" as const) : undefined;
    },
    async request(method, params) {
      asked.push(method);
      if (!connected) throw new Error("not connected");
      if (method === "gateway.suspend.prepare") {
        if (prepare instanceof Error) throw prepare;
        return prepare;
      }
      if (method === "gateway.suspend.status") {
        return { status: clock.monotonic() >= readyAfterMs ? "ready" : "draining" };
      }
      expect(params).toEqual({
        suspensionId: "lease",
        target: { pid: 7, processInstanceId: "instance" },
      });
      if (scene.handoff instanceof Error) throw scene.handoff;
      return { status: "armed" };
    },
  };
  if (scene.exitAfterMs !== undefined) clock.after(scene.exitAfterMs, exited.resolve);
  const stop = stopOpenclaw(
    {
      pid: 7,
      exited: exited.promise,
      signal(name) {
        expect(name).toBe("SIGTERM");
        signalledAt = clock.monotonic();
      },
    },
    {
      budgetMs: scene.budgetMs,
      signal: new AbortController().signal,
      session,
      clock,
      requestId: "stop",
      isStarted: async () => clock.monotonic() >= (scene.startedAfterMs ?? 0),
    },
  );
  // Ten minutes are more than any budget here.
  for (let turn = 0; turn < 1_200 && Bun.peek.status(stop) === "pending"; turn += 1) {
    await clock.advance(500);
  }
  const { path } = await stop;
  return { path, signalledAt, asked: [...new Set(asked)] };
}

test("an idle gateway gets its SIGTERM at once", async () => {
  expect(await play({ budgetMs: 76_000, prepare: ready })).toEqual({
    path: "drained",
    signalledAt: 0,
    asked: ["gateway.suspend.prepare"],
  });
});

test("a turn that ends in time is waited for", async () => {
  const { path, signalledAt } = await play({ budgetMs: 76_000, readyAfterMs: 12_000 });
  expect(path).toBe("drained");
  expect(signalledAt).toBe(12_000);
});

test.each([
  [76_000, 20_000],
  [120_000, 20_000],
  [70_000, 14_000],
  [60_000, 4_000],
])("in %i ms a turn that goes on is handed over after %i ms", async (budgetMs, expected) => {
  const { path, signalledAt, asked } = await play({ budgetMs });
  expect(path).toBe("handoff");
  expect(signalledAt).toBe(expected);
  expect(asked).toContain("gateway.suspend.handoff");
});

test.each([
  [59_000, 49_000],
  [20_000, 10_000],
  [5_000, 0],
])(
  "in %i ms there is no handoff, and the SIGTERM comes after %i ms",
  async (budgetMs, expected) => {
    const { path, signalledAt, asked } = await play({ budgetMs });
    expect(path).toBe("undrained");
    expect(signalledAt).toBe(expected);
    expect(asked).not.toContain("gateway.suspend.handoff");
  },
);

test("a gateway that refuses to hand over gets its SIGTERM all the same", async () => {
  const { path, signalledAt } = await play({ budgetMs: 76_000, handoff: new Error("no") });
  expect(path).toBe("sigterm");
  expect(signalledAt).toBe(20_000);
});

test.each([
  ["is busy", { prepare: { status: "busy", reason: "restart" } }],
  ["does not know suspensions", { prepare: new Error("unknown method") }],
  ["answers nonsense", { prepare: 5 }],
])("a gateway that %s gets its SIGTERM at once", async (_name, scene) => {
  expect(await play({ budgetMs: 76_000, ...scene })).toMatchObject({
    path: "sigterm",
    signalledAt: 0,
  });
});

test("a gateway without a session gets its SIGTERM after a moment", async () => {
  const { path, signalledAt } = await play({ budgetMs: 76_000, connected: false });
  expect(path).toBe("sigterm");
  expect(signalledAt).toBeLessThanOrEqual(3_500);
});

test("a gateway that starts is not cut off", async () => {
  const { path, signalledAt } = await play({
    budgetMs: 76_000,
    startedAfterMs: 30_000,
    prepare: ready,
  });
  expect(path).toBe("drained");
  expect(signalledAt).toBe(30_000);
});

test("a gateway that starts for longer than there is gets a SIGTERM while it can still end", async () => {
  const { path, signalledAt } = await play({ budgetMs: 76_000, startedAfterMs: Infinity });
  expect(path).toBe("sigterm");
  expect(signalledAt).toBe(66_000);
});

test.each([[{ startedAfterMs: Infinity }], [{ prepare: draining }]])(
  "a gateway that ends by itself meanwhile gets no signal: %j",
  async (scene) => {
    const { path, signalledAt } = await play({ budgetMs: 76_000, exitAfterMs: 3_000, ...scene });
    expect(path).toBe("exited");
    expect(signalledAt).toBeUndefined();
  },
);
