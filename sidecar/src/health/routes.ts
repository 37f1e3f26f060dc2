import { Hono } from "hono";

import type { Report } from "./report.ts";

export interface Readiness {
  readonly ready: boolean;
  /** Names of the parts that are waited for; nothing more, the route needs no token. */
  readonly waitingFor: readonly string[];
}

export interface HealthOptions {
  readonly readiness: () => Readiness;
  readonly report: () => Report;
  /**
   * Scans and commits; resolves when what was on the disk at the call is durable. Rejects with a sentence for people where
   * it cannot be (backup off, fenced, unreachable until the signal aborts).
   */
  readonly sync: (
    signal: AbortSignal,
  ) => Promise<{ readonly position: number; readonly lagMs: number }>;
  /** Restarts a service; false if there is none of that name. Throws where it may not start now. */
  readonly restart: (name: string) => boolean;
  /** How long /machine/sync may take. The dashboard's server gives a call 30 s. */
  readonly syncTimeoutMs?: number;
}

/** `GET /livez`, `/readyz` and the same under /machine, for the platform's checks: no token, no detail. */
export function createProbeRoutes({ readiness }: HealthOptions): Hono {
  const routes = new Hono();
  for (const prefix of ["", "/machine"]) {
    routes.get(`${prefix}/livez`, (c) => c.json({ ok: true }));
    routes.get(`${prefix}/readyz`, (c) => {
      const { ready, waitingFor } = readiness();
      return ready ? c.json({ ready }) : c.json({ ready, waitingFor }, 503);
    });
  }
  return routes;
}

/** `/machine/*` for operators and the dashboard; the token is checked by whoever mounts it. */
export function createMachineRoutes(options: HealthOptions): Hono {
  const { report, sync, restart, syncTimeoutMs = 25_000 } = options;
  const routes = new Hono();
  routes.get("/status", (c) => c.json(report()));
  routes.post("/sync", async (c) => {
    const limit = AbortSignal.timeout(syncTimeoutMs);
    try {
      return c.json(await sync(AbortSignal.any([limit, c.req.raw.signal])));
    } catch (error) {
      const why = limit.aborted
        ? `Cannot sync: not done after ${syncTimeoutMs / 1_000} s, it goes on in the background; see /machine/status`
        : messageOf(error);
      return c.json({ error: why, code: "not_durable", backup: report().backup.state }, 503);
    }
  });
  routes.post("/services/:name/restart", (c) => {
    const name = c.req.param("name");
    let found: boolean;
    try {
      found = restart(name);
    } catch (error) {
      return c.json({ error: messageOf(error), code: "refused" }, 409);
    }
    if (!found) {
      return c.json(
        { error: `Cannot restart "${name}": there is no such service`, code: "not_found" },
        404,
      );
    }
    return c.json({ accepted: true }, 202);
  });
  return routes;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
