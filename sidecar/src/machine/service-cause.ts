import type { Cause } from "../health/reasons.ts";
import type { ServiceStatus } from "../supervisor/spec.ts";

/**
 * What a service takes from the machine's readiness; undefined where it is ready, or has not been started yet. One kind
 * from a death until it is ready again, whatever it goes through meanwhile, so that `since` tells how long it is away.
 */
export function serviceCause(service: ServiceStatus): Cause | undefined {
  const { name, state, ready, lastExit } = service;
  const reason = service.reason ?? `it is ${state}`;
  switch (state) {
    case "initial":
      return undefined;
    case "failed":
      return {
        part: name,
        kind: "failed",
        message: `Given up for now: ${reason}. It is tried again every 5 minutes; when the cause is mended, POST /machine/services/${name}/restart starts it at once`,
      };
    case "stopped":
      return { part: name, kind: "stopped", message: `Not running: ${reason}` };
    case "backoff":
      return {
        part: name,
        kind: "not_ready",
        message: `Not ready: ${reason}; it is started again in a moment`,
      };
    default: {
      if (ready) return undefined;
      const before = lastExit ? `; its last end: ${lastExit.reason}` : "";
      return { part: name, kind: "not_ready", message: `Not ready: ${reason}${before}` };
    }
  }
}
