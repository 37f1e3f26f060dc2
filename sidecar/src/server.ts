import { Hono, type MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import { requestId } from "hono/request-id";

import type { Clock } from "./platform/clock.ts";
import type { Logger } from "./platform/log.ts";
import type { AppEnv } from "./server/app-env.ts";

export interface AppOptions {
  /** Made by createAuth: stands before everything that is not named public here. */
  readonly auth: MiddlewareHandler<AppEnv>;
  /** Routes of /files, served with and without that prefix. */
  readonly files: Hono;
  /** Routes below /machine that need the token. */
  readonly machine: Hono;
  /** Routes at the top that need no token, such as /livez and /machine/livez. */
  readonly publicRoutes: readonly Hono[];
  /** Exact origins whose pages may call with credentials. */
  readonly corsOrigins: readonly string[];
  readonly log: Logger;
  readonly clock: Clock;
  /** What comes of a body after the answer that refused it is thrown away for so long, then the connection ends. Default 60 s. */
  readonly discardS?: number;
}

/** Everything the machine answers over HTTP. Errors are `{error, code, requestId}`. */
export function createApp(options: AppOptions): Hono<AppEnv> {
  const { auth, files, machine, publicRoutes, corsOrigins, log, clock, discardS = 60 } = options;
  const app = new Hono<AppEnv>();
  app.use(requestId());
  app.use(logRequests(log, clock));
  app.use(finishAnswers(discardS));
  app.use(
    cors({
      origin: [...corsOrigins],
      credentials: true,
      allowMethods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
      exposeHeaders: [
        "Content-Disposition",
        "Content-Length",
        "Content-Range",
        "ETag",
        "Retry-After",
        "X-Request-Id",
      ],
      maxAge: 600,
    }),
  );
  app.onError((error, c) => {
    const requestId = c.get("requestId");
    if (error instanceof HTTPException) {
      return c.json({ error: error.message, code: "refused", requestId }, error.status);
    }
    log.error({ requestId, method: c.req.method, path: c.req.path, error }, "Request failed");
    return c.json({ error: "Internal error", code: "internal", requestId }, 500);
  });
  app.notFound((c) =>
    c.json({ error: "No such route", code: "no_route", requestId: c.get("requestId") }, 404),
  );

  for (const path of ["/health", "/files/health"]) {
    app.get(path, (c) => c.json({ status: "ok", service: "file-server" }));
  }
  for (const routes of publicRoutes) app.route("/", routes);
  app.use(auth);
  app.route("/machine", machine);
  app.route("/files", files);
  app.route("/", files);
  return app;
}

/** One line per request, without its query: the token may be there. The platform's own checks only when asked for. */
function logRequests(log: Logger, clock: Clock): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const start = clock.monotonic();
    await next();
    const { status } = c.res;
    const fields = {
      requestId: c.get("requestId"),
      method: c.req.method,
      path: c.req.path,
      status,
      durationMs: Math.round(clock.monotonic() - start),
    };
    const quiet = status === 429 || /\/(?:livez|readyz|health|metrics)$/.test(c.req.path);
    if (quiet) log.debug(fields, "Request answered");
    else log.info(fields, "Request answered");
  };
}

/**
 * Headers for every answer. One that was given before the end of the body must reach the client, or the proxy before it,
 * and a connection cut while a body is being sent often loses it: Bun throws away what still comes, without keeping it,
 * but without an end.
 */
function finishAnswers(discardS: number): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    await next();
    const { headers, status } = c.res;
    headers.set("X-Content-Type-Options", "nosniff");
    headers.set("Referrer-Policy", "no-referrer");
    if (!headers.has("Cache-Control")) headers.set("Cache-Control", "no-store");
    const { raw } = c.req;
    const sendsBody = raw.headers.has("transfer-encoding") || raw.headers.has("content-length");
    if (sendsBody && (status >= 400 || !raw.bodyUsed)) c.env?.closeWithin?.(discardS);
  };
}
