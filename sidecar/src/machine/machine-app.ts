import { Hono, type MiddlewareHandler } from "hono";
import type { RequestIdVariables } from "hono/request-id";

import type { Config } from "../config.ts";
import { createFilesRoutes, type Refusal } from "../files/routes.ts";
import { createMachineRoutes, createProbeRoutes, type HealthOptions } from "../health/routes.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { createApp } from "../server.ts";
import type { AppEnv } from "../server/app-env.ts";
import { createAuth } from "../server/auth.ts";
import type { Credentials } from "../store/credentials.ts";
import type { Owner } from "../volume/dir.ts";
import { OWN_FOLDER } from "../volume/marker.ts";
import { Root } from "../volume/root.ts";
import { createCredentialsRoutes } from "./credentials-routes.ts";
import type { Disk } from "./disk.ts";
import type { VolumeLife } from "./volume-life.ts";

/** Absolute paths of earlier images, and the folders on the volume that they mean now. Source: machine.md, Volume. */
const ALIASES = [
  ["/home/node/.openclaw/workspace", "workspace"],
  ["/home/node/workspace", "workspace"],
  ["/root/clawd", "workspace"],
  ["/home/node/.openclaw", "openclaw"],
  ["/root/.clawdbot", "openclaw"],
  ["/root/.openclaw", "openclaw"],
  // Its own name, so that a request cannot take the folder away from under the agent.
  ["/data/home", "home"],
  // What the volume is called in every document, wherever it is mounted.
  ["/data", ""],
] as const;

/** What no path of /files may name: ours, and the file system's. */
const PRIVATE = [OWN_FOLDER, ".sidecar-copies", "lost+found"];

export interface MachineAppOptions {
  readonly config: Config;
  readonly health: HealthOptions;
  readonly volume: VolumeLife;
  readonly disk: Disk;
  readonly owner: Owner | undefined;
  /** Of the store; undefined where it needs none. */
  readonly credentials: Credentials | undefined;
  readonly isStopping: () => boolean;
  /** Somebody who may is using the machine. */
  readonly onUse: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface MachineApps {
  /** For whoever can reach the port: most of it needs the token. */
  readonly outside: Hono<AppEnv>;
  /** The same for whoever can open the root-only socket. */
  readonly local: Hono<AppEnv>;
}

/** Everything this machine answers over HTTP. */
export function machineApps(options: MachineAppOptions): MachineApps {
  const { config, health, volume, disk, owner, isStopping, onUse, clock, log } = options;
  const root = new Root(config.dataDir, { private: PRIVATE, aliases: ALIASES });
  const writable = (): Refusal | undefined => {
    if (isStopping()) return refusal(503, "The machine is stopping", "stopping");
    const { write, message, code } = volume.access;
    if (!write) return refusal(code === "fenced" ? 403 : 503, message, code);
    return disk.isLow
      ? refusal(507, "The volume is full: delete files or extend it", "no_space")
      : undefined;
  };
  const files = new Hono();
  files.use(onlyWhenReadable(volume, onUse));
  files.route("/", createFilesRoutes({ root, clock, owner, writable }));
  const auth = createAuth({
    token: config.token,
    signingSecret: config.signingSecret,
    user: config.userId,
    clock,
  });
  const machine = createMachineRoutes(health);
  const forRoot = new Hono();
  forRoot.route("/", machine);
  forRoot.route("/", createCredentialsRoutes(options.credentials));
  const shared = {
    files,
    publicRoutes: [createProbeRoutes(health)],
    corsOrigins: config.dashboardOrigins,
    log: log.child({ part: "server" }),
    clock,
  };
  return {
    outside: createApp({ ...shared, machine, auth }),
    local: createApp({ ...shared, machine: forRoot, auth: (_, next) => next() }),
  };
}

/** A volume that is not whole yet, or not this user's, is shown to nobody. */
function onlyWhenReadable(
  volume: VolumeLife,
  onUse: () => void,
): MiddlewareHandler<{ Variables: RequestIdVariables }> {
  return async (c, next) => {
    const { read, message, code } = volume.access;
    onUse();
    if (read) return next();
    c.header("Retry-After", "5");
    return c.json({ error: message, code, requestId: c.get("requestId") }, 503);
  };
}

function refusal(status: Refusal["status"], error: string, code: string): Refusal {
  return { status, error, code };
}
