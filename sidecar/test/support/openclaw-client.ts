/** An OpenClaw operator over a WebSocket, as the supervisor or a person's client is one. */
export class OpenclawClient implements Disposable {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<string, (response: Response) => void>();
  #ids = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  /** Resolves with the client and the payload of the gateway's answer to `connect`. Rejects with the close code and reason. */
  static connect(url: string, token: string): Promise<{ client: OpenclawClient; hello: Payload }> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      const client = new OpenclawClient(socket);
      const limit = AbortSignal.timeout(20_000);
      limit.addEventListener("abort", () =>
        reject(new Error(`Cannot connect to ${url}: no answer in 20 s`)),
      );
      socket.addEventListener("close", (event) =>
        reject(new Error(`Cannot connect to ${url}: ${event.code} ${event.reason}`)),
      );
      socket.addEventListener("message", (event) => {
        const message = JSON.parse(String(event.data)) as Message;
        if (message.type === "event" && message.event === "connect.challenge") {
          client
            .call("connect", {
              minProtocol: 4,
              maxProtocol: 4,
              client: { id: "gateway-client", version: "test", platform: "linux", mode: "backend" },
              role: "operator",
              scopes: ["operator.admin", "operator.read", "operator.write"],
              caps: [],
              auth: { token },
            })
            .then((hello) => resolve({ client, hello }), reject);
        } else if (message.type === "res") {
          client.#waiting.get(message.id)?.(message);
          client.#waiting.delete(message.id);
        }
      });
    });
  }

  /** Calls a method; rejects with the gateway's error. */
  call(method: string, params: object): Promise<Payload> {
    const id = String((this.#ids += 1));
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (response) => {
        if (response.ok) resolve(response.payload ?? {});
        else reject(new Error(`${method}: ${JSON.stringify(response.error)}`));
      });
      this.#socket.send(JSON.stringify({ type: "req", id, method, params }));
    });
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

type Payload = Readonly<Record<string, unknown>>;

interface Response {
  readonly type: "res";
  readonly id: string;
  readonly ok: boolean;
  readonly payload?: Payload;
  readonly error?: unknown;
}

type Message = Response | { readonly type: "event"; readonly event: string };
