import { expect, test } from "bun:test";

import { GatewaySession } from "../../src/gateway/session.ts";
import { systemClock, type Clock } from "../../src/platform/clock.ts";
import { capturedLog } from "../support/captured-log.ts";
import { freePorts } from "../support/free-ports.ts";
import { StubOpenclaw } from "../support/stub-openclaw.ts";
import { until } from "../support/until.ts";

/** Time that runs a thousand times as fast, so that half a minute between two questions is 30 ms. */
const fast: Clock = {
  now: () => systemClock.now(),
  monotonic: () => systemClock.monotonic() * 1_000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1_000, signal),
  // Time-outs stay long: an answer that is on its way takes real time.
  after: (ms, callback) => systemClock.after(ms / 10, callback),
};

function sessionWith(port: number, onEvent?: (event: string, payload: unknown) => void) {
  const session = new GatewaySession({
    port,
    token: "token-token",
    clock: fast,
    log: capturedLog(),
    ...(onEvent ? { onEvent } : {}),
  });
  session.start();
  return {
    session,
    async [Symbol.asyncDispose]() {
      await session.stop();
    },
  };
}

test("a session connects as the supervisor, learns who answers, and asks for health again and again", async () => {
  using gateway = new StubOpenclaw();
  await using own = sessionWith(gateway.port);
  const health = () => gateway.requests.filter(({ method }) => method === "health").length;
  await until(() => health() >= 3, "health to be asked for");
  expect(gateway.requests[0]).toMatchObject({
    method: "connect",
    params: {
      client: { id: "gateway-client", mode: "backend" },
      role: "operator",
      auth: { token: "token-token" },
    },
  });
  expect(own.session.identity).toEqual({ pid: 4711, processInstanceId: "instance" });
  expect(own.session.phase).toBe("accepting");
  expect(own.session.trouble).toBeUndefined();
  expect(gateway.connections).toBe(1);
});

test("a session that ends is opened again", async () => {
  using gateway = new StubOpenclaw();
  const events: string[] = [];
  await using own = sessionWith(gateway.port, (event) => events.push(event));
  const opened = () => events.filter((event) => event === "session.open").length;
  await until(() => opened() === 1, "the first connection");
  gateway.drop(1006);
  await until(() => opened() === 2, "the second connection");
  await until(() => own.session.trouble === undefined, "the trouble to be over");
});

test("nobody answering is trouble", async () => {
  const [port = 0] = await freePorts(1);
  await using own = sessionWith(port);
  await until(() => own.session.trouble, "trouble");
  expect(own.session.connected).toBe(false);
  await expect(own.session.request("health", {}, 1_000)).rejects.toThrow("not connected");
});

test.each([
  ["a refused token", "connect", { error: { code: "INVALID_REQUEST" } }],
  ["a hello that is none", "connect", { payload: { type: "something else" } }],
  ["bad health", "health", { payload: { ok: false } }],
  ["health without an answer", "health", "silence"],
  ["a process that does not say who it is", "system.info", { payload: {} }],
] as const)("%s is trouble, until it is over", async (_name, method, answer) => {
  using gateway = new StubOpenclaw();
  const good = gateway.answers.get(method);
  gateway.answers.set(method, () => answer);
  await using own = sessionWith(gateway.port);
  await until(() => own.session.trouble, "trouble");
  if (good) gateway.answers.set(method, good);
  await until(() => own.session.trouble === undefined, "the trouble to be over");
});

test("a message that is far too long ends the connection", async () => {
  using gateway = new StubOpenclaw();
  const events: string[] = [];
  await using own = sessionWith(gateway.port, (event) => events.push(event));
  const opened = () => events.filter((event) => event === "session.open").length;
  await until(() => opened() === 1, "the first connection");
  gateway.emitRaw(JSON.stringify({ type: "event", event: "x".repeat(5 * 1024 * 1024) }));
  await until(() => opened() === 2, "the second connection");
  expect(events.every((event) => event.length < 100)).toBe(true);
  expect(own.session.connected).toBe(true);
});

test("messages that mean nothing to us are passed over", async () => {
  using gateway = new StubOpenclaw();
  await using own = sessionWith(gateway.port);
  await until(() => own.session.identity, "the connection");
  for (const text of ["{", "[]", '{"type":"new"}', '{"type":"res","id":"999","ok":true}']) {
    gateway.emitRaw(text);
  }
  const asked = gateway.requests.length;
  await until(() => gateway.requests.length > asked + 1, "the session to go on");
  expect(own.session.trouble).toBeUndefined();
});

test("a gateway that says it is starting is given time", async () => {
  using gateway = new StubOpenclaw();
  const starting = { code: "UNAVAILABLE", details: { reason: "startup-sidecars" } };
  gateway.answers.set("connect", () => ({ error: starting }));
  await using own = sessionWith(gateway.port);
  await until(() => gateway.requests.length > 0, "the first try");
  expect(own.session.trouble).toBeUndefined();
  // Five minutes pass in 300 ms.
  await until(() => own.session.trouble, "patience to end");
  expect(own.session.trouble).toContain("UNAVAILABLE");
});

test("a gateway that announces its restart is given time", async () => {
  using gateway = new StubOpenclaw();
  await using own = sessionWith(gateway.port);
  await until(() => own.session.connected, "the connection");
  gateway.answers.set("connect", () => "silence");
  gateway.emit("shutdown", { reason: "restart", restartExpectedMs: 1_500 });
  gateway.drop();
  await until(() => !own.session.connected, "the end of the connection");
  expect(own.session.trouble).toBeUndefined();
});

test("a suspended gateway is asked for nothing and is no trouble", async () => {
  using gateway = new StubOpenclaw();
  await using own = sessionWith(gateway.port);
  await until(() => own.session.identity, "the connection");
  gateway.emit("gateway.suspension", { phase: "prepared" });
  await until(() => own.session.phase === "prepared", "the suspension");
  const refused = { code: "UNAVAILABLE", details: { reason: "gateway-suspending" } };
  gateway.answers.set("health", () => ({ error: refused }));
  const asked = gateway.requests.length;
  await Bun.sleep(100);
  expect(gateway.requests.length).toBe(asked);
  expect(own.session.trouble).toBeUndefined();
});

test("a session that was stopped knows nothing any more, and can begin again", async () => {
  using gateway = new StubOpenclaw();
  await using own = sessionWith(gateway.port);
  await until(() => own.session.identity, "the connection");
  await own.session.stop();
  expect(own.session.identity).toBeUndefined();
  await until(() => gateway.connections === 0, "the connection to end");
  own.session.start();
  await until(() => own.session.identity, "the next connection");
});
