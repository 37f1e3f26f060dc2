import { z } from "zod";

import type { Clock } from "../platform/clock.ts";

/** The gateway's own limit is 25 MiB; nothing that we ask for comes near this. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const MAX_PENDING = 64;

/** OpenClaw's protocol version, from the first frame on. */
const PROTOCOL = 4;

const phaseSchema = z.enum(["accepting", "preparing", "draining", "prepared"]);
/** Whether the gateway takes new work; everything but `accepting` is a suspension that somebody asked for. */
export type Phase = z.infer<typeof phaseSchema>;

const frameSchema = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("event"), event: z.string(), payload: z.unknown().optional() }),
  z.looseObject({
    type: z.literal("res"),
    id: z.string(),
    ok: z.boolean(),
    payload: z.unknown().optional(),
    error: z
      .looseObject({
        code: z.string().catch("UNKNOWN"),
        message: z.string().catch(""),
        details: z
          .looseObject({ code: z.string().optional(), reason: z.string().optional() })
          .optional()
          .catch(undefined),
      })
      .optional(),
  }),
]);

const helloSchema = z.looseObject({
  type: z.literal("hello-ok"),
  snapshot: z.looseObject({
    suspension: z.looseObject({ phase: phaseSchema.catch("accepting") }).optional(),
  }),
});

const suspensionSchema = z.looseObject({ phase: phaseSchema });

/** The gateway answered a request with an error. */
export class GatewayRefusal extends Error {
  /** Such as `UNAVAILABLE` or `INVALID_REQUEST`. */
  readonly code: string;
  /** What `details` says, such as `startup-sidecars` or `AUTH_TOKEN_MISMATCH`. */
  readonly reason: string | undefined;

  constructor(method: string, error: { code: string; message: string; reason?: string }) {
    super(`Cannot ask the gateway for "${method}": ${error.code}, ${error.message.slice(0, 300)}`);
    this.name = "GatewayRefusal";
    this.code = error.code;
    this.reason = error.reason;
  }
}

export interface GatewaySocketOptions {
  readonly port: number;
  readonly token: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Milliseconds for everything up to hello-ok. */
  readonly timeoutMs: number;
  /** Called for every event, also those before hello-ok. Must not throw. */
  readonly onEvent: (event: string, payload: unknown) => void;
}

interface Pending {
  readonly method: string;
  readonly resolve: (payload: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * One WebSocket to the gateway, connected as its supervisor (`gateway-client` in mode `backend`): over the loopback the
 * token alone gives every scope and leaves no pairing record.
 */
export class GatewaySocket {
  /** Resolves with why the connection ended. Never rejects. */
  readonly closed: Promise<string>;
  readonly #socket: WebSocket;
  readonly #options: GatewaySocketOptions;
  readonly #pending = new Map<string, Pending>();
  readonly #end: (reason: string) => void;
  #challenged: () => void = () => undefined;
  #lastId = 0;
  #phase: Phase = "accepting";
  #over = false;

  /** Connects and authenticates. Throws a GatewayRefusal where the gateway says no, an Error where nobody answers. */
  static async open(options: GatewaySocketOptions): Promise<GatewaySocket> {
    const gateway = new GatewaySocket(options);
    try {
      await gateway.#handshake();
      return gateway;
    } catch (error) {
      gateway.close();
      throw error;
    }
  }

  private constructor(options: GatewaySocketOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.closed = promise;
    this.#end = resolve;
    this.#socket = new WebSocket(`ws://127.0.0.1:${options.port}/`);
    this.#socket.addEventListener("message", (message) => this.#onMessage(message.data));
    this.#socket.addEventListener("close", ({ code, reason }) => {
      this.#finish(`closed with ${code}${reason === "" ? "" : ` ${reason.slice(0, 120)}`}`);
    });
    this.#socket.addEventListener("error", () => this.#finish("no connection"));
    options.signal.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal.aborted) this.close();
  }

  /** Whether the gateway takes new work, as it last said. */
  get phase(): Phase {
    return this.#phase;
  }

  /** Throws a GatewayRefusal where the gateway says no, an Error where it does not answer in `timeoutMs`. */
  async request(method: string, params: object, timeoutMs: number): Promise<unknown> {
    if (this.#over) throw new Error(`Cannot ask the gateway for "${method}": not connected`);
    if (this.#pending.size >= MAX_PENDING) {
      throw new Error(`Cannot ask the gateway for "${method}": ${MAX_PENDING} answers are due`);
    }
    const id = String((this.#lastId += 1));
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { method, resolve, reject });
    const cancel = this.#options.clock.after(timeoutMs, () => {
      reject(new Error(`Cannot ask the gateway for "${method}": no answer in ${timeoutMs} ms`));
    });
    try {
      this.#socket.send(JSON.stringify({ type: "req", id, method, params }));
      return await promise;
    } finally {
      cancel();
      this.#pending.delete(id);
    }
  }

  close(): void {
    this.#finish("closed by us");
  }

  async #handshake(): Promise<void> {
    const { clock, timeoutMs, token } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#challenged = resolve;
    const cancel = clock.after(timeoutMs, () => {
      reject(new Error(`Cannot connect to the gateway: no challenge in ${timeoutMs} ms`));
    });
    try {
      await Promise.race([
        promise,
        this.closed.then((reason) => {
          throw new Error(`Cannot connect to the gateway: ${reason}`);
        }),
      ]);
    } finally {
      cancel();
    }
    const params = {
      minProtocol: PROTOCOL,
      maxProtocol: PROTOCOL,
      client: { id: "gateway-client", version: "1.0.0", platform: "linux", mode: "backend" },
      role: "operator",
      scopes: ["operator.admin", "operator.read", "operator.write", "operator.pairing"],
      caps: [],
      auth: { token },
    };
    const hello = helloSchema.safeParse(await this.request("connect", params, timeoutMs));
    if (!hello.success) {
      throw new Error("Cannot connect to the gateway: its hello is none we know", {
        cause: hello.error,
      });
    }
    this.#phase = hello.data.snapshot.suspension?.phase ?? "accepting";
  }

  #onMessage(data: unknown): void {
    if (typeof data !== "string" || data.length > MAX_MESSAGE_BYTES) {
      this.#finish("it sent a message that is binary or too long");
      return;
    }
    const frame = frameSchema.safeParse(parseJson(data));
    // Frames of a kind that we do not know are for somebody else.
    if (!frame.success) return;
    if (frame.data.type === "event") this.#onEvent(frame.data.event, frame.data.payload);
    else this.#onResponse(frame.data);
  }

  #onEvent(event: string, payload: unknown): void {
    if (event === "connect.challenge") this.#challenged();
    if (event === "gateway.suspension") {
      const suspension = suspensionSchema.safeParse(payload);
      if (suspension.success) this.#phase = suspension.data.phase;
    }
    this.#options.onEvent(event, payload);
  }

  #onResponse(frame: Extract<z.infer<typeof frameSchema>, { type: "res" }>): void {
    const pending = this.#pending.get(frame.id);
    if (!pending) return;
    if (frame.ok) {
      pending.resolve(frame.payload);
      return;
    }
    const { code = "UNKNOWN", message = "", details } = frame.error ?? {};
    const reason = details?.reason ?? details?.code;
    pending.reject(
      new GatewayRefusal(pending.method, {
        code,
        message,
        ...(reason === undefined ? {} : { reason }),
      }),
    );
  }

  readonly #onAbort = (): void => this.close();

  #finish(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    for (const { method, reject } of this.#pending.values()) {
      reject(new Error(`Cannot ask the gateway for "${method}": ${reason}`));
    }
    this.#socket.close();
    this.#end(reason);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
