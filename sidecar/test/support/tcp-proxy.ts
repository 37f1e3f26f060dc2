import { connect, createServer, type Server, type Socket } from "node:net";

/** Stands before a server on the loopback, so that a test can take it off the network and bring it back. */
export class TcpProxy implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #reachable = true;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(target: { readonly host: string; readonly port: number }): Promise<TcpProxy> {
    const server = createServer();
    const port = await new Promise<number>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
    });
    const proxy = new TcpProxy(server, port);
    server.on("connection", (client) => proxy.#accept(client, target));
    return proxy;
  }

  /** False cuts every connection and lets no new one live. */
  set reachable(reachable: boolean) {
    this.#reachable = reachable;
    if (!reachable) for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.reachable = false;
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(client: Socket, target: { readonly host: string; readonly port: number }): void {
    client.on("error", () => client.destroy());
    if (!this.#reachable) {
      client.destroy();
      return;
    }
    const upstream = connect(target);
    upstream.on("error", () => client.destroy());
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream).pipe(client);
  }
}
