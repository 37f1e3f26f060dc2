import type { Server, ServerWebSocket } from "bun";

/** Answers one request: a payload, an error, or nothing at all. */
export type StubAnswer =
  | { readonly payload: unknown }
  | { readonly error: { readonly code: string; readonly details?: { readonly reason?: string } } }
  | "silence";

/** The gateway's side of its WebSocket protocol, for faults that a real one cannot be brought to. */
export class StubOpenclaw implements Disposable {
  readonly port: number;
  /** Every request so far, oldest first. */
  readonly requests: { readonly method: string; readonly params: unknown }[] = [];
  /** Answers by method; what every session asks for has a good one from the start. */
  readonly answers = new Map<string, (params: unknown) => StubAnswer>();
  readonly #server: Server<undefined>;
  readonly #sockets = new Set<ServerWebSocket>();

  constructor() {
    const hello = { type: "hello-ok", snapshot: { suspension: { phase: "accepting" } } };
    this.answers.set("connect", () => ({ payload: hello }));
    this.answers.set("health", () => ({ payload: { ok: true } }));
    const identity = { pid: 4711, processInstanceId: "instance", hostname: "stub" };
    this.answers.set("system.info", () => ({ payload: identity }));
    this.answers.set("device.pair.list", () => ({ payload: { pending: [], paired: [] } }));
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request, server) =>
        server.upgrade(request) ? undefined : new Response("no", { status: 400 }),
      websocket: {
        open: (socket: ServerWebSocket) => {
          this.#sockets.add(socket);
          socket.send(event("connect.challenge", { nonce: "n", ts: 1 }));
        },
        message: (socket, data) => this.#onMessage(socket, String(data)),
        close: (socket) => {
          this.#sockets.delete(socket);
        },
      },
    });
    this.port = this.#server.port ?? 0;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Sends an event to everybody. */
  emit(name: string, payload: unknown): void {
    for (const socket of this.#sockets) socket.send(event(name, payload));
  }

  /** Sends text as it is to everybody. */
  emitRaw(text: string): void {
    for (const socket of this.#sockets) socket.send(text);
  }

  /** Ends every connection. */
  drop(code = 1012, reason = "service restart"): void {
    for (const socket of this.#sockets) socket.close(code, reason);
  }

  [Symbol.dispose](): void {
    void this.#server.stop(true);
  }

  #onMessage(socket: ServerWebSocket, data: string): void {
    const { id, method, params } = JSON.parse(data) as {
      id: string;
      method: string;
      params: unknown;
    };
    this.requests.push({ method, params });
    const answer = this.answers.get(method)?.(params) ?? "silence";
    if (answer === "silence") return;
    const ok = "payload" in answer;
    const error = ok ? {} : { error: { message: "refused by the stub", ...answer.error } };
    socket.send(
      JSON.stringify({ type: "res", id, ok, ...(ok ? { payload: answer.payload } : error) }),
    );
  }
}

function event(name: string, payload: unknown): string {
  return JSON.stringify({ type: "event", event: name, payload });
}
