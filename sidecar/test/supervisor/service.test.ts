import { expect, test } from "bun:test";

import { Service, type ServiceOptions } from "../../src/supervisor/service.ts";
import type { Exit, ServiceSpec, ServiceState } from "../../src/supervisor/spec.ts";
import { FakeChild } from "../support/fake-child.ts";
import { ManualClock } from "../support/manual-clock.ts";

interface SetupOptions {
  readonly spec?: Partial<ServiceSpec>;
  readonly options?: Partial<ServiceOptions>;
  readonly mortalTo?: readonly string[];
}

/** A service whose children are fakes, and everything it said. */
function setup({ spec = {}, options = {}, mortalTo }: SetupOptions = {}) {
  const clock = new ManualClock();
  const children: FakeChild[] = [];
  const states: ServiceState[] = [];
  const exits: Exit[] = [];
  const service = new Service(
    {
      name: "web",
      launch: () => Promise.resolve({ command: ["web"], env: {}, cwd: "/" }),
      ...spec,
    },
    {
      clock,
      spawn: () => {
        const child = new FakeChild(1_000 + children.length, mortalTo);
        children.push(child);
        return child;
      },
      clear: () => Promise.resolve(),
      random: () => 0,
      onChange: ({ state }) => {
        if (states.at(-1) !== state) states.push(state);
      },
      onExit: (exit) => exits.push(exit),
      ...options,
    },
  );
  const child = (): FakeChild => {
    const last = children.at(-1);
    if (!last) throw new Error("Cannot take the child: none was started");
    return last;
  };
  /** Starts it and lets it come up. */
  const run = async (): Promise<FakeChild> => {
    const started = service.start();
    await clock.advance(1_000);
    await started;
    return child();
  };
  return { service, clock, children, child, states, exits, run };
}

const settled = async (promise: Promise<unknown>): Promise<boolean> => {
  const open = Symbol("open");
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  return (await Promise.race([promise, Promise.resolve(open)])) !== open;
};

test("Service is running after a second up, and start resolves then", async () => {
  const { service, clock, states } = setup();
  expect(service.status).toMatchObject({ state: "initial", pid: undefined, restarts: 0 });
  const started = service.start();
  await clock.advance(999);
  expect(service.status).toMatchObject({ state: "starting", pid: 1_000, ready: false });
  expect(await settled(started)).toBe(false);
  await clock.advance(1);
  await started;
  expect(service.status).toMatchObject({ state: "running", ready: true, reason: undefined });
  expect(states).toEqual(["starting", "running"]);
});

test("Service starts one child, however often it is asked", async () => {
  const { service, clock, children, run } = setup();
  await Promise.all([service.start(), service.start(), run()]);
  await service.start();
  await clock.advance(60_000);
  expect(children).toHaveLength(1);
});

test("Service stops by SIGTERM and SIGCONT, and does not start again", async () => {
  const { service, clock, children, exits, run } = setup();
  const child = await run();
  await service.stop();
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT"]);
  expect(service.status).toMatchObject({ state: "stopped", pid: undefined, ready: false });
  expect(exits).toMatchObject([{ signal: "SIGTERM", asked: true }]);
  await clock.advance(600_000);
  expect(children).toHaveLength(1);
});

test("Service kills at the end of the budget", async () => {
  const { service, clock, states, run } = setup({ mortalTo: ["SIGKILL"] });
  const child = await run();
  const stopped = service.stop({ budgetMs: 5_000 });
  await clock.advance(4_999);
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT"]);
  expect(service.status.state).toBe("stopping");
  await clock.advance(1);
  await stopped;
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT", "SIGKILL"]);
  expect(states).toEqual(["starting", "running", "stopping", "killing", "stopped"]);
});

test("Service takes the shorter of two budgets", async () => {
  const { service, clock, run } = setup({ mortalTo: ["SIGKILL"] });
  await run();
  const first = service.stop({ budgetMs: 60_000 });
  const second = service.stop({ budgetMs: 5_000 });
  const third = service.stop({ budgetMs: 90_000 });
  await clock.advance(5_000);
  await Promise.all([first, second, third]);
  expect(service.status.state).toBe("stopped");
});

test("Service gives up waiting for what survives SIGKILL, and starts nothing beside it", async () => {
  const { service, clock, children, run } = setup({ mortalTo: [] });
  const child = await run();
  const killed = service.kill();
  await clock.advance(5_000);
  await killed;
  expect(service.status).toMatchObject({ state: "killing", reason: "still there after SIGKILL" });
  const started = service.start();
  await clock.advance(60_000);
  expect(children).toHaveLength(1);
  child.end({ signal: "SIGKILL" });
  await clock.advance(1_000);
  await started;
  expect(children).toHaveLength(2);
  expect(service.status.state).toBe("running");
});

test("kill does not wait for a stop under way", async () => {
  const { service, run } = setup({ mortalTo: ["SIGKILL"] });
  const child = await run();
  const stopped = service.stop({ budgetMs: 60_000 });
  await service.kill();
  await stopped;
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT", "SIGKILL"]);
});

test("Service leaves the asking to its spec, with the budget, until the child is gone", async () => {
  const asked: number[] = [];
  let aborted = false;
  const { service, run } = setup({
    spec: {
      stop(running, { budgetMs, signal }) {
        asked.push(budgetMs, running.pid);
        signal.addEventListener("abort", () => (aborted = true));
        running.signal("SIGUSR2");
        return Promise.resolve();
      },
    },
    mortalTo: ["SIGUSR2"],
  });
  const child = await run();
  await service.stop({ budgetMs: 7_000 });
  expect(asked).toEqual([7_000, 1_000]);
  expect(child.signals).toEqual(["SIGUSR2"]);
  expect(aborted).toBe(true);
});

test("Service asks by SIGTERM where the spec's own way fails", async () => {
  const { service, run } = setup({
    spec: { stop: () => Promise.reject(new Error("no connection")) },
  });
  const child = await run();
  await service.stop();
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT"]);
});

test("Service kills at the deadline though the spec's own way never ends", async () => {
  let reason: unknown;
  const { service, clock, run } = setup({
    spec: {
      stop: (_running, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            reason = signal.reason;
            reject(signal.reason as Error);
          });
        }),
    },
  });
  const child = await run();
  const stopped = service.stop({ budgetMs: 3_000 });
  await clock.advance(3_000);
  await stopped;
  expect(child.signals[0]).toBe("SIGKILL");
  expect(reason).toBeInstanceOf(Error);
});

test("Service starts again after a death, later each time", async () => {
  const { service, clock, child, children, run } = setup();
  await run();
  for (const delay of [500, 1_000, 2_000]) {
    child().end({ code: 1 });
    await clock.advance(0);
    expect(service.status).toMatchObject({ state: "backoff", reason: "ended with code 1" });
    const before = children.length;
    await clock.advance(delay - 1);
    expect(children).toHaveLength(before);
    await clock.advance(1);
    expect(children).toHaveLength(before + 1);
    await clock.advance(1_000);
    expect(service.status.state).toBe("running");
  }
  expect(service.status).toMatchObject({ restarts: 3, lastExit: { code: 1 } });
});

test("Service stays down after five deaths within a minute, and tries again every five minutes", async () => {
  const { service, clock, child, children } = setup();
  const started = service.start();
  for (let death = 0; death < 5; death += 1) {
    await clock.advance(0);
    child().end({ code: 3 });
    if (death < 4) await clock.advance(500 * 2 ** death);
  }
  await clock.advance(0);
  await started;
  expect(service.status).toMatchObject({
    state: "failed",
    reason: "ended with code 3 (5 times within 8 s)",
  });
  await clock.advance(299_999);
  expect(children).toHaveLength(5);
  await clock.advance(1);
  expect(children).toHaveLength(6);
  child().end({ code: 3 });
  await clock.advance(0);
  expect(service.status.state).toBe("failed");
  await clock.advance(300_000);
  await clock.advance(31_000);
  expect(service.status.state).toBe("running");
  child().end({ code: 3 });
  await clock.advance(0);
  expect(service.status.state).toBe("backoff");
});

test.each(["backoff", "failed"] as const)("start ends a %s at once", async (state) => {
  const { service, clock, child, children, run } = setup({
    spec: { judge: () => ({ kind: state, reason: "because" }) },
  });
  await run();
  child().end({ code: 1 });
  await clock.advance(0);
  expect(service.status).toMatchObject({ state, reason: "because" });
  await run();
  expect(service.status.state).toBe("running");
  expect(children).toHaveLength(2);
});

test.each(["initial", "backoff", "failed", "stopped"] as const)(
  "stop in %s is done at once",
  async (state) => {
    const { service, clock, child, children, run } = setup({
      spec: {
        judge: () => ({ kind: state === "failed" ? "failed" : "backoff", reason: "because" }),
      },
    });
    if (state !== "initial") {
      await run();
      if (state === "stopped") await service.stop();
      else child().end({ code: 1 });
      await clock.advance(0);
    }
    expect(service.status.state).toBe(state);
    await service.stop();
    expect(service.status.state).toBe("stopped");
    await clock.advance(1_000_000);
    expect(children.length).toBeLessThanOrEqual(1);
    expect(service.status.state).toBe("stopped");
  },
);

test("stop in the first second stops the child, and start resolves", async () => {
  const { service, clock, child } = setup();
  const started = service.start();
  await clock.advance(10);
  await service.stop();
  await started;
  expect(child().signals).toEqual(["SIGTERM", "SIGCONT"]);
  await clock.advance(10_000);
  expect(service.status.state).toBe("stopped");
});

test("stop while the start is prepared ends the preparation and spawns nothing", async () => {
  let reason: unknown;
  const { service, clock, children } = setup({
    spec: {
      launch: (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            reason = signal.reason;
            reject(signal.reason as Error);
          });
        }),
    },
  });
  void service.start();
  await clock.advance(10);
  await service.stop();
  expect(reason).toBeInstanceOf(Error);
  expect(service.status.state).toBe("stopped");
  expect(children).toHaveLength(0);
});

test("a preparation that ignores the stop is waited for until the deadline, and its launch is not used", async () => {
  const launch = Promise.withResolvers<{ command: [string]; env: {}; cwd: string }>();
  const { service, clock, children } = setup({ spec: { launch: () => launch.promise } });
  void service.start();
  await clock.advance(10);
  const stopped = service.stop({ budgetMs: 2_000 });
  await clock.advance(1_999);
  expect(await settled(stopped)).toBe(false);
  await clock.advance(1);
  await stopped;
  launch.resolve({ command: ["web"], env: {}, cwd: "/" });
  await clock.advance(10_000);
  expect(children).toHaveLength(0);
  expect(service.status.state).toBe("stopped");
});

test("a preparation that never ends is given up after five minutes and counts as a death", async () => {
  const { service, clock } = setup({ spec: { launch: () => new Promise(() => {}) } });
  void service.start();
  await clock.advance(300_000);
  expect(service.status).toMatchObject({
    state: "backoff",
    lastExit: { reason: "not prepared within 300 s" },
  });
});

test.each([
  ["a launch", { spec: { launch: () => Promise.reject(new Error("no config")) } }],
  [
    "a spawn",
    {
      options: {
        spawn: () => {
          throw new Error("no config");
        },
      },
    },
  ],
  ["the end of remains", { options: { clear: () => Promise.reject(new Error("no config")) } }],
] satisfies [string, SetupOptions][])(
  "%s that throws counts as a death",
  async (_what, options) => {
    const { service, clock } = setup(options);
    const started = service.start();
    await clock.advance(0);
    await started;
    expect(service.status).toMatchObject({
      state: "backoff",
      reason: "no config",
      lastExit: { reason: "no config" },
    });
    await clock.advance(60_000);
    expect(service.status).toMatchObject({ state: "failed", restarts: 4 });
  },
);

test("restart stops and starts, without a delay and without forgetting the budget", async () => {
  const { service, clock, children, run, states } = setup({ mortalTo: ["SIGKILL"] });
  await run();
  const restarted = service.restart({ budgetMs: 4_000 });
  await clock.advance(4_000);
  expect(children).toHaveLength(2);
  expect(await settled(restarted)).toBe(false);
  await clock.advance(1_000);
  await restarted;
  expect(states).toEqual(["starting", "running", "stopping", "killing", "starting", "running"]);
});

test("restart uses the budget of the spec where it is given none", async () => {
  const { service, clock, child, run } = setup({
    spec: { stopBudgetMs: 9_000 },
    mortalTo: ["SIGKILL"],
  });
  const first = await run();
  void service.restart();
  await clock.advance(8_999);
  expect(first.signals).not.toContain("SIGKILL");
  await clock.advance(1_001);
  expect(first.signals).toContain("SIGKILL");
  expect(child()).not.toBe(first);
});

test("stop overrides a restart under way", async () => {
  const { service, clock, children, child, run } = setup({ mortalTo: [] });
  await run();
  const restarted = service.restart();
  const stopped = service.stop();
  child().end({ code: 0 });
  await Promise.all([restarted, stopped]);
  await clock.advance(600_000);
  expect(children).toHaveLength(1);
  expect(service.status.state).toBe("stopped");
});

test("restarts during a restart are one restart", async () => {
  const { service, clock, children, child, run } = setup({ mortalTo: [] });
  await run();
  const all = [service.restart(), service.restart(), service.start(), service.restart()];
  child().end({ code: 0 });
  await clock.advance(1_000);
  await Promise.all(all);
  expect(children).toHaveLength(2);
});

test("start while it stops waits for the end, then starts", async () => {
  const { service, clock, children, child, run } = setup({ mortalTo: [] });
  await run();
  const stopped = service.stop();
  const started = service.start();
  await clock.advance(5_000);
  expect(children).toHaveLength(1);
  child().end({ code: 0 });
  await clock.advance(1_000);
  await Promise.all([stopped, started]);
  expect(children).toHaveLength(2);
  expect(service.status.state).toBe("running");
});

test("Service judges only what nobody asked for, and tells what it knows", async () => {
  const judged: Exit[] = [];
  const { service, clock, child, run } = setup({
    spec: {
      judge(exit) {
        judged.push(exit);
        return { kind: "restart", reason: "it wanted to" };
      },
    },
    options: { oomJustKilled: () => true },
  });
  await run();
  await clock.advance(4_000);
  child().end({ code: 0, lastLines: ["bye"] });
  await clock.advance(0);
  expect(judged).toEqual([
    {
      code: 0,
      signal: undefined,
      asked: false,
      oomKilled: false,
      upMs: 5_000,
      lastLines: ["bye"],
    },
  ]);
  expect(service.status.lastExit?.reason).toBe("it wanted to");
  await clock.advance(1_500);
  await service.stop();
  expect(judged).toHaveLength(1);
});

test.each([
  { what: "SIGKILL and the kernel's count", how: { signal: "SIGKILL" }, counted: true, oom: true },
  { what: "code 137 and the kernel's count", how: { code: 137 }, counted: true, oom: true },
  { what: "SIGKILL alone", how: { signal: "SIGKILL" }, counted: false, oom: false },
  { what: "another signal", how: { signal: "SIGSEGV" }, counted: true, oom: false },
])("Service judges want of memory by $what", async ({ how, counted, oom }) => {
  const { clock, child, exits, run } = setup({ options: { oomJustKilled: () => counted } });
  await run();
  child().end(how);
  await clock.advance(0);
  expect(exits[0]?.oomKilled).toBe(oom);
});

test("a restart the child wanted keeps the base delay, five times in a minute", async () => {
  const { service, clock, child, children, run } = setup({
    spec: { judge: () => ({ kind: "restart", reason: "wanted" }) },
  });
  await run();
  for (let death = 0; death < 4; death += 1) {
    child().end({ code: 0 });
    await clock.advance(500);
    expect(children).toHaveLength(death + 2);
  }
  child().end({ code: 0 });
  await clock.advance(0);
  expect(service.status.state).toBe("failed");
});

test.each([
  {
    what: "throws",
    judge: () => Promise.reject(new Error("cure failed")),
    waitMs: 0,
    reason: "ended with code 1; cure failed",
  },
  {
    what: "never answers",
    judge: () => new Promise<never>(() => {}),
    waitMs: 120_000,
    reason: "ended with code 1; no verdict within 120 s",
  },
])("a judge that $what means a backoff", async ({ judge, waitMs, reason }) => {
  const { service, clock, child, run } = setup({ spec: { judge } });
  await run();
  child().end({ code: 1 });
  await clock.advance(waitMs);
  expect(service.status).toMatchObject({ state: "backoff", reason });
  await clock.advance(1_500);
  expect(service.status.state).toBe("running");
});

test("a verdict that comes after a stop is ignored", async () => {
  const verdict = Promise.withResolvers<{ kind: "backoff"; reason: string }>();
  const { service, clock, child, children, run } = setup({
    spec: { judge: () => verdict.promise },
  });
  await run();
  child().end({ code: 1 });
  await clock.advance(10);
  await service.stop();
  verdict.resolve({ kind: "backoff", reason: "late" });
  await clock.advance(600_000);
  expect(service.status.state).toBe("stopped");
  expect(children).toHaveLength(1);
});

test("Service is ready after the first yes, asked every 250 ms from the start", async () => {
  const answers: (string | undefined)[] = ["closed", "closed", undefined];
  let asked = 0;
  const { service, clock } = setup({
    spec: {
      admission: {
        timeoutMs: 60_000,
        probe: () => Promise.resolve(answers[Math.min(asked++, 2)]),
      },
    },
  });
  void service.start();
  await clock.advance(0);
  expect(service.status).toMatchObject({
    state: "starting",
    ready: false,
    reason: "not admitted: closed",
  });
  await clock.advance(250);
  expect(asked).toBe(2);
  await clock.advance(250);
  expect(service.status).toMatchObject({ state: "starting", ready: true, reason: undefined });
  await clock.advance(500);
  expect(service.status).toMatchObject({ state: "running", ready: true });
  await clock.advance(60_000);
  expect(asked).toBe(3);
});

test("start does not wait for the admission", async () => {
  const { service, run } = setup({
    spec: { admission: { timeoutMs: 60_000, probe: () => Promise.resolve("closed") } },
  });
  await run();
  expect(service.status).toMatchObject({
    state: "running",
    ready: false,
    reason: "not admitted: closed",
  });
});

test("Service restarts with a delay what is not admitted in time", async () => {
  const { service, clock, children, run } = setup({
    spec: { admission: { timeoutMs: 10_000, probe: () => Promise.resolve("closed") } },
  });
  const child = await run();
  await clock.advance(9_000);
  expect(child.signals).toEqual(["SIGTERM", "SIGCONT"]);
  expect(service.status).toMatchObject({
    state: "backoff",
    reason: "not admitted within 10 s: closed",
  });
  await clock.advance(500);
  expect(children).toHaveLength(2);
});

test("a probe that throws or hangs is a no", async () => {
  let asked = 0;
  const { service, clock, run } = setup({
    spec: {
      admission: {
        timeoutMs: 60_000,
        probe: () => {
          asked += 1;
          return asked === 1 ? Promise.reject(new Error("refused")) : new Promise(() => {});
        },
      },
    },
  });
  await run();
  expect(asked).toBe(2);
  expect(service.status.reason).toBe("not admitted: refused");
  await clock.advance(5_000);
  expect(service.status.reason).toBe("not admitted: no answer within 5000 ms");
});

function alive(answer: () => string | undefined, graceMs?: number) {
  return {
    liveness: {
      probe: () => Promise.resolve(answer()),
      everyMs: 10_000,
      timeoutMs: 3_000,
      misses: 3,
      ...(graceMs === undefined ? {} : { graceMs }),
    },
  };
}

test("Service restarts what misses three times in a row, as if it had died", async () => {
  let answer: string | undefined;
  const { service, clock, children, exits, run } = setup({ spec: alive(() => answer) });
  await run();
  await clock.advance(30_000);
  expect(service.status.ready).toBe(true);
  answer = "answered 503";
  await clock.advance(20_000);
  answer = undefined;
  await clock.advance(10_000);
  answer = "answered 503";
  await clock.advance(20_000);
  expect(service.status.ready).toBe(true);
  await clock.advance(10_000);
  expect(service.status).toMatchObject({ state: "backoff", reason: "not alive: answered 503" });
  expect(exits).toMatchObject([{ asked: true }]);
  await clock.advance(500);
  expect(children).toHaveLength(2);
});

test("Service does not restart for want of life within the grace, but is not ready", async () => {
  let answer: string | undefined = "closed";
  const { service, clock, children, run } = setup({ spec: alive(() => answer, 120_000) });
  await run();
  await clock.advance(30_000);
  expect(service.status).toMatchObject({ state: "running", ready: false });
  answer = undefined;
  await clock.advance(10_000);
  expect(service.status.ready).toBe(true);
  answer = "closed";
  await clock.advance(80_000);
  expect(children).toHaveLength(1);
  expect(service.status.state).toBe("backoff");
});

test("a stop of what is not alive is a stop", async () => {
  const { service, clock, children, child, run } = setup({
    spec: alive(() => "closed"),
    mortalTo: [],
  });
  await run();
  await clock.advance(30_000);
  expect(service.status.state).toBe("stopping");
  const stopped = service.stop();
  child().end({ code: 0 });
  await stopped;
  await clock.advance(600_000);
  expect(service.status.state).toBe("stopped");
  expect(children).toHaveLength(1);
});

test("Service asks nothing of a child that has ended", async () => {
  let asked = 0;
  const { service, clock, child, run } = setup({
    spec: {
      ...alive(() => {
        asked += 1;
        return undefined;
      }),
      judge: () => ({ kind: "failed", reason: "enough" }),
    },
  });
  await run();
  child().end({ code: 1 });
  await clock.advance(200_000);
  expect(asked).toBe(0);
  expect(service.status.state).toBe("failed");
});

test("Service awaits the end of remains before each start", async () => {
  const cleared: PromiseWithResolvers<void>[] = [];
  const { service, clock, children } = setup({
    options: {
      clear: () => {
        const next = Promise.withResolvers<void>();
        cleared.push(next);
        return next.promise;
      },
    },
  });
  void service.start();
  await clock.advance(2_000);
  expect(children).toHaveLength(0);
  cleared[0]?.resolve();
  await clock.advance(0);
  expect(children).toHaveLength(1);
});

test("random events in any order never run two children nor lose a stop", async () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  for (let round = 0; round < 200; round += 1) {
    const { service, clock, children } = setup({
      mortalTo: random(2) === 0 ? ["SIGTERM", "SIGKILL"] : ["SIGKILL"],
    });
    const ended = new Set<FakeChild>();
    for (let step = 0; step < 30; step += 1) {
      switch (random(6)) {
        case 0:
          void service.start();
          break;
        case 1:
          void service.stop({ budgetMs: random(10_000) });
          break;
        case 2:
          void service.restart({ budgetMs: random(10_000) });
          break;
        case 3: {
          const last = children.at(-1);
          last?.end({ code: random(3) });
          if (last) ended.add(last);
          break;
        }
        case 4:
          if (random(4) === 0) void service.kill();
          break;
        default:
          await clock.advance(random(20_000));
      }
      await clock.advance(random(100));
      expect(children.filter((child) => !ended.has(child) && !isDead(child)).length).toBeLessThan(
        2,
      );
    }
    const stopped = service.stop({ budgetMs: 1_000 });
    await clock.advance(10_000);
    await stopped;
    expect(service.status).toMatchObject({ state: "stopped", pid: undefined });
    const starts = children.length;
    await clock.advance(1_000_000);
    expect(children).toHaveLength(starts);
  }
});

function isDead(child: FakeChild): boolean {
  return child.signals.some((signal) => child.mortalTo.includes(signal));
}
