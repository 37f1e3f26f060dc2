import { expect, setDefaultTimeout, test } from "bun:test";

import type { FixtureOptions } from "../fixtures/supervisor-main.ts";
import { SEATS, isolate, type Isolated, type Seat } from "../support/namespace.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

function supervise(seat: Seat, options: FixtureOptions, times = 1): Isolated {
  return isolate("supervisor-main.ts", { seat, args: [JSON.stringify(options)], times });
}

function sh(name: string, script: string): FixtureOptions["services"][number] {
  return { name, command: ["sh", "-c", script] };
}

function event(run: Isolated, fields: Record<string, unknown>): Promise<Record<string, unknown>> {
  return until(
    () =>
      run.events.findLast((one) =>
        Object.entries(fields).every(([name, value]) => one[name] === value),
      ),
    `${JSON.stringify(fields)} in\n${run.output()}`,
    20_000,
  );
}

/** Asks for the stop and returns what the program said last. */
async function end(run: Isolated): Promise<Record<string, unknown>> {
  process.kill(await run.pid(), "SIGTERM");
  expect(await run.exited).toBe(0);
  return event(run, { event: "bye" });
}

/** Ignores SIGTERM, has a session of its own, and says its name once it does. */
const IMMUNE = `setsid sh -c 'trap "" TERM; echo immune; while :; do sleep 0.2; done' &`;

test.each(SEATS)(
  "Supervisor as %s ends a TERM-immune grandchild with a session of its own before it exits",
  async (seat) => {
    await using run = supervise(seat, {
      services: [sh("deep", `${IMMUNE} wait`), sh("plain", "exec sleep 60")],
    });
    await event(run, { event: "line", line: "immune" });
    const bye = await end(run);
    expect(bye).toMatchObject({ left: 0, others: [] });
  },
);

test.each(SEATS)("the sweep of %s spares a helper of its own", async (seat) => {
  await using run = supervise(seat, { helper: true, services: [sh("plain", "exec sleep 60")] });
  const { pid } = await event(run, { event: "helper" });
  await event(run, { event: "change", state: "running" });
  expect(await end(run)).toMatchObject({ left: 0, others: [pid] });
});

test.each(SEATS)("Supervisor as %s is not held up by a pipe that an orphan holds", async (seat) => {
  await using run = supervise(seat, {
    budgetMs: 30_000,
    services: [sh("holder", "setsid sleep 60 & echo up; exec sleep 60")],
  });
  await event(run, { event: "line", line: "up" });
  const bye = await end(run);
  expect(Number(bye["stopMs"])).toBeLessThan(10_000);
  expect(bye["others"]).toEqual([]);
});

test.each(SEATS)("Supervisor as %s kills at the end of the budget", async (seat) => {
  await using run = supervise(seat, {
    budgetMs: 500,
    services: [sh("deaf", `trap "" TERM; echo up; while :; do sleep 0.2; done`)],
  });
  await event(run, { event: "line", line: "up" });
  const bye = await end(run);
  expect(Number(bye["stopMs"])).toBeGreaterThanOrEqual(500);
  expect(bye["others"]).toEqual([]);
  expect(await event(run, { event: "exit" })).toMatchObject({ signal: "SIGKILL", asked: true });
});

test.each(SEATS)("a second signal to a supervisor as %s ends the waiting", async (seat) => {
  await using run = supervise(seat, {
    budgetMs: 600_000,
    sweepMs: 600_000,
    services: [sh("deaf", `trap "" TERM; ${IMMUNE} while :; do sleep 0.2; done`)],
  });
  await event(run, { event: "line", line: "immune" });
  process.kill(await run.pid(), "SIGTERM");
  await event(run, { event: "change", state: "stopping" });
  process.kill(await run.pid(), "SIGTERM");
  expect(await run.exited).toBe(0);
  expect(await event(run, { event: "bye" })).toMatchObject({ left: 0, others: [] });
});

test.concurrent.each(SEATS)(
  "Supervisor as %s stays up when a service loops, and knows each exit",
  async (seat) => {
    await using run = supervise(seat, {
      services: [sh("broken", "echo sorry >&2; exit 42"), sh("fine", "exec sleep 60")],
    });
    expect(await event(run, { event: "change", name: "broken", state: "failed" })).toMatchObject({
      reason: expect.stringMatching(/^ended with code 42 \(5 times within \d+ s\)$/),
    });
    const exits = run.events.filter((one) => one["event"] === "exit");
    expect(exits.map(({ code }) => code)).toEqual([42, 42, 42, 42, 42]);
    await event(run, { event: "change", name: "fine", state: "running" });
    await end(run);
  },
);

test("Supervisor cuts a line of 10 MB, without holding it", async () => {
  await using run = supervise("subreaper", {
    services: [sh("long", "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo next; sleep 60")],
  });
  await event(run, { event: "line", line: "next" });
  const cut = run.events.find((one) => one["event"] === "line");
  expect(cut?.["line"]).toBe("x".repeat(100));
  expect(Number(cut?.["length"])).toBeLessThan(17_000);
  const report = await event(run, { event: "report" });
  expect(Number(report["rss"])).toBeLessThan(150 * 1024 * 1024);
  await end(run);
});

test("Supervisor reads a flood of lines without growing or standing still", async () => {
  await using run = supervise("subreaper", {
    services: [
      { name: "flood", command: ["yes", "a line of a runaway child"] },
      { name: "flood-too", command: ["sh", "-c", "exec yes more >&2"] },
    ],
  });
  await until(
    () => run.events.filter((one) => one["event"] === "report").length > 15,
    "reports, as long as the loop turns",
    30_000,
  );
  const report = await event(run, { event: "report" });
  expect(Number(report["rss"])).toBeLessThan(200 * 1024 * 1024);
  const lines = run.events.filter((one) => one["event"] === "line");
  const dropped = lines.reduce((sum, one) => sum + Number(one["dropped"] ?? 0), 0);
  expect(dropped).toBeGreaterThan(10_000);
  expect(lines.length).toBeLessThan(20_000);
  await end(run);
});

test("the next life ends what a killed one left behind, before it starts anything", async () => {
  using dir = tempDir();
  await using run = supervise(
    "subreaper",
    {
      dir: dir.path,
      budgetMs: 500,
      services: [sh("deep", `trap "" TERM; ${IMMUNE} while :; do sleep 0.2; done`)],
    },
    2,
  );
  await event(run, { event: "line", line: "immune" });
  const first = await event(run, { event: "booted" });
  process.kill(await run.pid(), "SIGKILL");
  const second = await until(
    () => run.events.findLast((one) => one["event"] === "booted" && one["pid"] !== first["pid"]),
    `a second boot in\n${run.output()}`,
    20_000,
  );
  expect(second["others"]).toEqual([]);
  expect(run.output()).toContain("Ended what a killed sidecar had left");
  await end(run);
});
