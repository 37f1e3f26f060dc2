import { lstatSync, unlinkSync } from "node:fs";

import type { Hono } from "hono";

import { aborted } from "../platform/aborted.ts";
import type { Logger } from "../platform/log.ts";
import type { AppEnv } from "./app-env.ts";

/** Where a server listens. A socket is a file that its owner alone may use: whoever can connect is root. */
type Listen =
  | {
      /** 0 takes any free port. */
      readonly port: number;
      /** Default: all addresses. */
      readonly hostname?: string;
    }
  | { readonly socket: string };

export interface ServerOptions {
  readonly app: Pick<Hono<AppEnv>, "fetch">;
  readonly listen: Listen;
  readonly log: Logger;
  /** A connection on which nothing moves for so long is closed. At most, and by default, 255 s: slow clients and long answers. */
  readonly idleTimeoutS?: number;
}

/** Bun answers a longer body itself and without our words, so that this is far above every limit of our own. */
const MAX_BODY_BYTES = 2 ** 40;

/** A listening socket and what is answered on it. */
export class Server {
  readonly name = "server";
  readonly #options: ServerOptions;
  #server: Bun.Server<undefined> | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** The port it listens on. Throws before `start`. */
  get port(): number {
    const port = this.#server?.port;
    if (port === undefined) throw new Error("Cannot tell the port: the server has not started");
    return port;
  }

  /** Resolves when connections are accepted. Throws where the port is taken. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { app, listen, log, idleTimeoutS = 255 } = this.#options;
    const isSocket = "socket" in listen;
    // The file appears with the right mode: a moment with another one is enough to connect.
    const umask = isSocket ? process.umask(0o177) : undefined;
    try {
      if (isSocket) removeOldSocket(listen.socket);
      const handlers = {
        maxRequestBodySize: MAX_BODY_BYTES,
        development: false,
        fetch: (request: Request, server: Bun.Server<undefined>) =>
          app.fetch(request, {
            peer: server.requestIP(request)?.address,
            touch: () => server.timeout(request, idleTimeoutS),
            closeWithin: (seconds) => server.timeout(request, seconds),
          } satisfies AppEnv["Bindings"]),
        error: (error: Error) => {
          log.error({ error }, "Request failed outside the app");
          return Response.json({ error: "Internal error", code: "internal" }, { status: 500 });
        },
      };
      const { hostname = "0.0.0.0", port = 0 } = isSocket ? {} : listen;
      this.#server = isSocket
        ? Bun.serve({ ...handlers, unix: listen.socket })
        : Bun.serve({ ...handlers, port, hostname, idleTimeout: idleTimeoutS });
    } catch (error) {
      const where = isSocket ? listen.socket : `${listen.hostname ?? "0.0.0.0"}:${listen.port}`;
      throw new Error(`Cannot listen on "${where}": ${messageOf(error)}`, { cause: error });
    } finally {
      if (umask !== undefined) process.umask(umask);
    }
  }

  /** Takes no more connections, lets requests end until the signal aborts, then cuts them off. */
  async stop(signal: AbortSignal): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    await Promise.race([server.stop(), aborted(signal)]);
    await server.stop(true);
  }
}

/** A killed life leaves its socket behind. Anything else of that name is not ours to remove. */
function removeOldSocket(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat?.isSocket()) unlinkSync(path);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
