import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { MachineEvent, MachineEventType, Report } from "./report.ts";

export interface ControlPlaneOptions {
  /** Base URL without a trailing slash. */
  readonly url: string;
  readonly token: string;
  readonly machineId: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly report: () => Report;
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** Between two reports when nothing happens, the least between two reports, and the longest pause after failures. */
const EVERY_MS = 30_000;
const SOONEST_MS = 250;
const REFUSED_MAX_MS = 5 * 60_000;
const TIMEOUT_MS = 10_000;
/** Events kept while the control plane is away; the oldest go first. */
const MAX_EVENTS = 1_000;
/** Events in one report. */
const BATCH = 100;

/**
 * Posts the report to `{url}/machines/{id}/report`: every 30 s, and at once when told of a change. The control plane
 * being away never affects the machine. Source: machine.md, Control plane.
 */
export class ControlPlane {
  readonly name = "heartbeat";
  readonly #options: ControlPlaneOptions;
  readonly #stopping = new AbortController();
  #events: MachineEvent[] = [];
  #wake: AbortController = new AbortController();
  #changed = false;
  #gone = false;
  #failing = false;
  #loop: Promise<void> = Promise.resolve();

  constructor(options: ControlPlaneOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#loop = this.#run();
  }

  /** Sends the last report ("stopped") and ends; gives up when `signal` aborts. */
  async stop(signal: AbortSignal): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    this.#stopping.abort(new Error("The control plane client is stopping"));
    await this.#loop;
    if (!this.#gone) await this.#post(signal).catch(() => undefined);
  }

  /** Queues an event and reports soon. */
  event(type: MachineEventType, details: Readonly<Record<string, unknown>> = {}): void {
    const at = new Date(this.#options.clock.now()).toISOString();
    this.#events.push({ id: crypto.randomUUID(), at, type, details });
    if (this.#events.length > MAX_EVENTS) this.#events.shift();
    this.changed();
  }

  /** The machine's state changed: reports within a second. */
  changed(): void {
    this.#changed = true;
    this.#wake.abort();
  }

  async #run(): Promise<void> {
    const { clock } = this.#options;
    let failures = 0;
    while (!this.#stopping.signal.aborted && !this.#gone) {
      this.#changed = false;
      const outcome = await this.#post(this.#stopping.signal).catch(() => "away" as const);
      if (this.#stopping.signal.aborted) return;
      this.#tell(outcome);
      failures = outcome === "ok" ? 0 : failures + 1;
      const backlog = outcome === "ok" && this.#events.length > 0;
      if (backlog) continue;
      await clock.sleep(SOONEST_MS, this.#stopping.signal).catch(() => undefined);
      const pause =
        outcome === "refused" ? Math.min(REFUSED_MAX_MS, EVERY_MS * 2 ** (failures - 1)) : EVERY_MS;
      // A control plane that is away is not asked more often because more happens here.
      if (this.#changed && failures < 2) continue;
      this.#wake = new AbortController();
      const signal =
        failures < 2
          ? AbortSignal.any([this.#stopping.signal, this.#wake.signal])
          : this.#stopping.signal;
      await clock.sleep(pause, signal).catch(() => undefined);
    }
  }

  async #post(signal: AbortSignal): Promise<"ok" | "away" | "refused" | "gone"> {
    const { url, token, machineId, report, fetch: send = fetch } = this.#options;
    const events = this.#events.slice(0, BATCH);
    const response = await send(`${url}/machines/${encodeURIComponent(machineId)}/report`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ report: report(), events }),
      // A redirect would carry the token to wherever it points.
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    await response.body?.cancel();
    if (response.ok) {
      const sent = new Set(events.map((event) => event.id));
      this.#events = this.#events.filter((event) => !sent.has(event.id));
      return "ok";
    }
    if (response.status === 410) return "gone";
    return response.status === 401 || response.status === 403 ? "refused" : "away";
  }

  #tell(outcome: "ok" | "away" | "refused" | "gone"): void {
    const { log } = this.#options;
    if (outcome === "gone") {
      this.#gone = true;
      log.warn({}, "The control plane says this machine was deleted; it is told nothing any more");
      return;
    }
    if (outcome === "ok" && this.#failing) log.info({}, "The control plane answers again");
    if (outcome === "refused" && !this.#failing) {
      log.error({}, "The control plane refuses our token; check CONTROL_PLANE_TOKEN");
    }
    if (outcome === "away" && !this.#failing)
      log.warn({}, "The control plane does not answer; reports wait");
    this.#failing = outcome !== "ok";
  }
}
