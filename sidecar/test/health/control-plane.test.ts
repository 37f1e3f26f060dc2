import { expect, test } from "bun:test";

import { ControlPlane } from "../../src/health/control-plane.ts";
import type { Report } from "../../src/health/report.ts";
import { capturedLog } from "../support/captured-log.ts";
import { ManualClock } from "../support/manual-clock.ts";

interface Posted {
  readonly url: string;
  readonly authorization: string;
  readonly body: {
    readonly report: { readonly state: string };
    readonly events: readonly { id: string; type: string }[];
  };
}

/** A control plane whose answers a test chooses, in the time a test makes pass. */
function setUp(): {
  readonly plane: ControlPlane;
  readonly clock: ManualClock;
  readonly log: ReturnType<typeof capturedLog>;
  readonly posted: Posted[];
  answer: number | "unreachable";
  state: string;
} {
  const clock = new ManualClock();
  const log = capturedLog();
  const posted: Posted[] = [];
  const context = { clock, log, posted, answer: 200 as number | "unreachable", state: "booting" };
  const plane = new ControlPlane({
    url: "https://control.test/api",
    token: "plane-token",
    machineId: "m/1",
    clock,
    log,
    report: () => ({ state: context.state }) as unknown as Report,
    fetch: async (url, init) => {
      const headers = new Headers(init.headers);
      posted.push({
        url,
        authorization: headers.get("authorization") ?? "",
        body: JSON.parse(init.body as string) as Posted["body"],
      });
      if (context.answer === "unreachable") throw new Error("connection refused");
      return new Response(null, { status: context.answer });
    },
  });
  return Object.assign(context, { plane });
}

test("ControlPlane reports at start and every 30 s", async () => {
  const t = setUp();
  await t.plane.start();
  await t.clock.advance(0);
  expect(t.posted).toHaveLength(1);
  expect(t.posted[0]).toMatchObject({
    url: "https://control.test/api/machines/m%2F1/report",
    authorization: "Bearer plane-token",
    body: { report: { state: "booting" }, events: [] },
  });
  await t.clock.advance(61_000);
  expect(t.posted).toHaveLength(3);
  await t.plane.stop(AbortSignal.timeout(1_000));
});

test("ControlPlane reports within a second of a change of state", async () => {
  const t = setUp();
  await t.plane.start();
  await t.clock.advance(5_000);
  t.state = "ready";
  t.plane.changed();
  await t.clock.advance(1_000);
  expect(t.posted.at(-1)?.body.report.state).toBe("ready");
  expect(t.posted).toHaveLength(2);
  await t.plane.stop(AbortSignal.timeout(1_000));
});

test("ControlPlane sends an event until it is answered, and then no more", async () => {
  const t = setUp();
  t.answer = 500;
  await t.plane.start();
  t.plane.event("restored", { files: 3 });
  await t.clock.advance(100_000);
  const ids = t.posted.flatMap((post) => post.body.events.map((event) => event.id));
  expect(new Set(ids).size).toBe(1);
  expect(ids.length).toBeGreaterThan(1);
  t.answer = 200;
  await t.clock.advance(60_000);
  const before = t.posted.length;
  await t.clock.advance(60_000);
  expect(t.posted.slice(before).every((post) => post.body.events.length === 0)).toBe(true);
  await t.plane.stop(AbortSignal.timeout(1_000));
});

test("ControlPlane keeps at most 1,000 events of an outage", async () => {
  const t = setUp();
  t.answer = "unreachable";
  await t.plane.start();
  for (let n = 0; n < 1_200; n += 1) t.plane.event("restart", { n });
  t.answer = 200;
  await t.clock.advance(120_000);
  const numbers = t.posted.flatMap((post) => post.body.events.map((event) => event.id));
  expect(new Set(numbers).size).toBe(1_000);
  await t.plane.stop(AbortSignal.timeout(1_000));
});

test("ControlPlane says once that its token is refused, and asks less and less often", async () => {
  const t = setUp();
  t.answer = 401;
  await t.plane.start();
  await t.clock.advance(60 * 60_000);
  expect(t.log.lines.filter((line) => line["level"] === "error")).toHaveLength(1);
  expect(t.posted.length).toBeLessThan(20);
  await t.plane.stop(AbortSignal.timeout(1_000));
});

test("ControlPlane reports no more after 410", async () => {
  const t = setUp();
  t.answer = 410;
  await t.plane.start();
  await t.clock.advance(10 * 60_000);
  expect(t.posted).toHaveLength(1);
  await t.plane.stop(AbortSignal.timeout(1_000));
  expect(t.posted).toHaveLength(1);
});

test("ControlPlane.stop() sends a last report and resolves also when nobody answers", async () => {
  const t = setUp();
  await t.plane.start();
  await t.clock.advance(0);
  t.state = "stopping";
  t.answer = "unreachable";
  t.plane.event("stopped");
  await t.plane.stop(AbortSignal.timeout(1_000));
  expect(t.posted.at(-1)?.body).toMatchObject({
    report: { state: "stopping" },
    events: [{ type: "stopped" }],
  });
});
