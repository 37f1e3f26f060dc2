import { z } from "zod";

import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { GatewayRefusal, GatewaySocket, type Phase } from "./gateway-socket.ts";
import { approvePairings } from "./pairing.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const HEALTH_EVERY_MS = 30_000;
const HEALTH_TIMEOUT_MS = 10_000;
const RECONNECT_MS = { first: 500, max: 10_000 };
/** How long the gateway may say "not now" (starting, draining, restarting) before that counts as being stuck. */
const PATIENCE_MS = 5 * 60_000;

const healthSchema = z.looseObject({ ok: z.boolean() });
/** Strict about its fields: a handoff that names more than these is refused. */
const identitySchema = z.object({
  pid: z.int(),
  processInstanceId: z.string().min(1).max(128),
});
/** Which process this session speaks to; a handoff must name it. */
export interface GatewayIdentity {
  readonly pid: number;
  readonly processInstanceId: string;
}

export interface GatewaySessionOptions {
  readonly port: number;
  readonly token: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called for every event of the gateway, and once after each connection with "session.open". Must not throw. */
  readonly onEvent?: (event: string, payload: unknown) => void;
}

/**
 * Keeps one connection to the running gateway: asks for its health, reconnects, and knows whether a failure says that
 * the gateway is stuck. HTTP answers 200 on a full disk while every connection fails, so this is the better witness.
 */
export class GatewaySession {
  readonly #options: GatewaySessionOptions;
  #stop: AbortController | undefined;
  #loop: Promise<void> = Promise.resolve();
  #socket: GatewaySocket | undefined;
  #identity: GatewayIdentity | undefined;
  #trouble: string | undefined;
  #excusedSince: number | undefined;
  #pairing: Promise<void> | undefined;
  #pairAgain = false;

  constructor(options: GatewaySessionOptions) {
    this.#options = options;
  }

  /** Begins to connect; nothing happens where it has begun already. */
  start(): void {
    if (this.#stop) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#loop = this.#run(stop.signal);
  }

  /** Forgets the gateway. Resolves when the connection is gone. */
  async stop(): Promise<void> {
    this.#stop?.abort();
    await this.#loop;
    await this.#pairing;
    this.#stop = undefined;
    this.#trouble = undefined;
    this.#excusedSince = undefined;
    this.#identity = undefined;
  }

  get connected(): boolean {
    return this.#socket !== undefined;
  }

  /** What the gateway says of taking work; undefined while there is no connection. */
  get phase(): Phase | undefined {
    return this.#socket?.phase;
  }

  /** The process behind the connection; undefined until it has said so. */
  get identity(): GatewayIdentity | undefined {
    return this.#identity;
  }

  /** Why the gateway looks stuck, in plain words; undefined while it answers, or has a good reason not to. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Throws a GatewayRefusal where the gateway says no, an Error where it cannot be asked. */
  async request(method: string, params: object, timeoutMs: number): Promise<unknown> {
    if (!this.#socket) throw new Error(`Cannot ask the gateway for "${method}": not connected`);
    return await this.#socket.request(method, params, timeoutMs);
  }

  async #run(signal: AbortSignal): Promise<void> {
    let delayMs = RECONNECT_MS.first;
    while (!signal.aborted) {
      try {
        await this.#converse(signal, () => {
          delayMs = RECONNECT_MS.first;
        });
      } catch (error) {
        if (!signal.aborted) this.#onFailure(error);
      }
      this.#socket = undefined;
      this.#identity = undefined;
      await this.#options.clock.sleep(delayMs, signal).catch(() => undefined);
      delayMs = Math.min(delayMs * 2, RECONNECT_MS.max);
    }
  }

  /** One connection, until it ends; it always ends with a throw. */
  async #converse(signal: AbortSignal, onHealthy: () => void): Promise<never> {
    const { port, token, clock, onEvent = () => undefined } = this.#options;
    const socket = await GatewaySocket.open({
      port,
      token,
      clock,
      signal,
      timeoutMs: CONNECT_TIMEOUT_MS,
      onEvent: (event, payload) => {
        // A restart in place closes the connection with intent; what follows is not the gateway being stuck.
        if (event === "shutdown") this.#excusedSince ??= clock.monotonic();
        if (event === "device.pair.requested") this.#pair();
        onEvent(event, payload);
      },
    });
    const ended = new AbortController();
    void socket.closed.then(() => ended.abort());
    try {
      this.#socket = socket;
      await this.#checkHealth(socket);
      onEvent("session.open", undefined);
      this.#pair();
      for (;;) {
        onHealthy();
        await clock.sleep(HEALTH_EVERY_MS, ended.signal).catch(() => undefined);
        if (ended.signal.aborted) throw new Error(`The session ended: ${await socket.closed}`);
        await this.#checkHealth(socket);
      }
    } finally {
      socket.close();
    }
  }

  /** Approves the devices that wait; at most one round is under way and one due. */
  #pair(): void {
    if (this.#pairing) {
      this.#pairAgain = true;
      return;
    }
    this.#pairAgain = false;
    this.#pairing = approvePairings((...question) => this.request(...question), this.#options.log)
      .catch((error: unknown) => {
        // The next connection looks at all that wait.
        if (this.connected) this.#options.log.warn({ error }, "Cannot approve devices that wait");
      })
      .then(() => {
        this.#pairing = undefined;
        if (this.#pairAgain && this.connected) this.#pair();
        return undefined;
      });
  }

  async #checkHealth(socket: GatewaySocket): Promise<void> {
    // A suspended gateway answers nothing but questions about its suspension, and that is all the life it can show.
    if (socket.phase === "accepting") {
      this.#identity ??= identitySchema.parse(
        await socket.request("system.info", {}, HEALTH_TIMEOUT_MS),
      );
      const health = healthSchema.parse(await socket.request("health", {}, HEALTH_TIMEOUT_MS));
      if (!health.ok) throw new Error('The gateway answers "health" with no');
    }
    if (this.#trouble !== undefined) this.#options.log.info({}, "The gateway's session is back");
    this.#trouble = undefined;
    this.#excusedSince = undefined;
  }

  #onFailure(error: unknown): void {
    const { clock, log } = this.#options;
    if (isExcuse(error)) this.#excusedSince ??= clock.monotonic();
    const excused =
      this.#excusedSince !== undefined && clock.monotonic() - this.#excusedSince < PATIENCE_MS;
    if (excused) return;
    if (this.#trouble === undefined) log.warn({ error }, "The gateway's session fails");
    this.#trouble = `session: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** True if the gateway itself says that it is starting, draining or suspended. */
function isExcuse(error: unknown): boolean {
  return error instanceof GatewayRefusal && error.code === "UNAVAILABLE";
}
