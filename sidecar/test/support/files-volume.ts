import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { Hono } from "hono";

import { createFilesRoutes, type FilesOptions } from "../../src/files/routes.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { createApp } from "../../src/server.ts";
import type { AppEnv } from "../../src/server/app-env.ts";
import { createAuth, type AuthOptions } from "../../src/server/auth.ts";
import { Root } from "../../src/volume/root.ts";
import { capturedLog } from "./captured-log.ts";
import { tempDir } from "./temp-dir.ts";

export const TOKEN = "token-of-the-gateway";
export const SIGNING_SECRET = "secret-of-the-signer";
export const ORIGIN = "https://dashboard.example";

/** The aliases of a machine, longest first or not. */
const ALIASES = [
  ["/home/node/.openclaw", "openclaw"],
  ["/home/node/.openclaw/workspace", "workspace"],
  ["/home/node/workspace", "workspace"],
  ["/root/clawd", "workspace"],
  ["/root/.clawdbot", "openclaw"],
] as const;

/** A volume as on a machine, below `data` in a folder of its own; `outside` beside it must never be touched. */
export interface FilesVolume extends Disposable {
  readonly path: string;
  readonly outside: string;
  readonly root: Root;
}

export function filesVolume(): FilesVolume {
  const dir = tempDir();
  for (const folder of ["workspace", "openclaw", "home", ".sidecar"]) {
    mkdirSync(join(dir.path, "data", folder), { recursive: true });
  }
  mkdirSync(join(dir.path, "outside"));
  const path = join(dir.path, "data");
  const root = new Root(path, { private: [".sidecar"], aliases: [...ALIASES, ["/data", ""]] });
  return {
    path,
    outside: join(dir.path, "outside"),
    root,
    [Symbol.dispose]() {
      root[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

export interface TestApp {
  readonly app: Hono<AppEnv>;
  readonly log: ReturnType<typeof capturedLog>;
}

/** The whole app on a real volume, with a public route, a machine route, and one that fails. */
export function filesApp(
  volume: FilesVolume,
  options: Partial<FilesOptions> & { readonly auth?: Partial<AuthOptions> } = {},
): TestApp {
  const log = capturedLog();
  const { auth, ...files } = options;
  const app = createApp({
    auth: createAuth({
      token: TOKEN,
      signingSecret: SIGNING_SECRET,
      user: "user-1",
      clock: systemClock,
      ...auth,
    }),
    files: createFilesRoutes({ root: volume.root, clock: systemClock, ...files }),
    machine: new Hono()
      .get("/status", (c) => c.json({ state: "ready" }))
      .get("/broken", () => {
        throw new Error("the secret detail");
      }),
    publicRoutes: [new Hono().get("/machine/livez", (c) => c.json({ ok: true }))],
    corsOrigins: [ORIGIN],
    log,
    clock: systemClock,
    discardS: 5,
  });
  return { app, log };
}

/** Calls an app with the token, as the dashboard does. */
export function caller({ app }: TestApp) {
  return async (
    method: string,
    route: string,
    { path, body }: { readonly path?: string; readonly body?: string | Buffer } = {},
  ) => {
    const query = path === undefined ? "" : `?path=${encodeURIComponent(path)}`;
    const response = await app.request(`/files${route}${query}`, {
      method,
      headers: { authorization: `Bearer ${TOKEN}` },
      ...(body === undefined ? {} : { body }),
    });
    const text = await response.text();
    const json = response.headers.get("content-type")?.startsWith("application/json");
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: (json === true ? JSON.parse(text) : undefined) as Record<string, unknown>,
    };
  };
}
