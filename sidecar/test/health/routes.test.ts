import { expect, test } from "bun:test";

import type { Report } from "../../src/health/report.ts";
import {
  createMachineRoutes,
  createProbeRoutes,
  type HealthOptions,
} from "../../src/health/routes.ts";

const REPORT = { v: 1, backup: { state: "unreachable" } } as unknown as Report;

function options(overrides: Partial<HealthOptions> = {}): HealthOptions {
  return {
    readiness: () => ({ ready: true, waitingFor: [] }),
    report: () => REPORT,
    sync: async () => ({ position: 7, lagMs: 0 }),
    restart: (name) => name === "gateway",
    ...overrides,
  };
}

test.each(["/livez", "/machine/livez"])("%s is 200 whatever the machine's state", async (path) => {
  const routes = createProbeRoutes(
    options({ readiness: () => ({ ready: false, waitingFor: ["volume"] }) }),
  );
  const response = await routes.request(path);
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ ok: true });
});

test("/readyz says what is waited for, and nothing more", async () => {
  const routes = createProbeRoutes(
    options({ readiness: () => ({ ready: false, waitingFor: ["volume", "gateway"] }) }),
  );
  const response = await routes.request("/readyz");
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({ ready: false, waitingFor: ["volume", "gateway"] });
  expect((await createProbeRoutes(options()).request("/readyz")).status).toBe(200);
});

test("POST /sync answers the position once all is durable", async () => {
  const response = await createMachineRoutes(options()).request("/sync", { method: "POST" });
  expect([response.status, await response.json()]).toEqual([200, { position: 7, lagMs: 0 }]);
});

test("POST /sync is 503 with the reason where it cannot be", async () => {
  const sync = () => Promise.reject(new Error("Cannot sync: the store does not answer"));
  const response = await createMachineRoutes(options({ sync })).request("/sync", {
    method: "POST",
  });
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({
    error: "Cannot sync: the store does not answer",
    backup: "unreachable",
  });
});

test("POST /sync gives up at its limit and says that it goes on", async () => {
  const sync = (signal: AbortSignal) =>
    new Promise<never>((_, reject) =>
      signal.addEventListener("abort", () => reject(signal.reason as Error)),
    );
  const response = await createMachineRoutes(options({ sync, syncTimeoutMs: 20 })).request(
    "/sync",
    { method: "POST" },
  );
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({
    error: expect.stringContaining("goes on in the background"),
  });
});

test("POST /services/:name/restart is 409 with the reason where it must not be", async () => {
  const refuse = (): never => {
    throw new Error('Cannot restart "gateway": the volume is not ready for it');
  };
  const routes = createMachineRoutes(options({ restart: refuse }));
  const response = await routes.request("/services/gateway/restart", { method: "POST" });

  expect(response.status).toBe(409);
  expect(await response.json()).toEqual({
    error: 'Cannot restart "gateway": the volume is not ready for it',
    code: "refused",
  });
});

test("POST /services/:name/restart accepts a service there is, and no other", async () => {
  const routes = createMachineRoutes(options());
  expect((await routes.request("/services/gateway/restart", { method: "POST" })).status).toBe(202);
  expect((await routes.request("/services/nobody/restart", { method: "POST" })).status).toBe(404);
});
