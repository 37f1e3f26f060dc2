import { resolve } from "node:path";

import type { Config, Environment } from "../config.ts";
import { caddySpec } from "../gateway/caddy-spec.ts";
import { ConfigFile, type ConfigEvent } from "../gateway/config-file.ts";
import { childEnvironment, modelSource, openclawEnvironment } from "../gateway/environment.ts";
import type { Refusal } from "../gateway/exit.ts";
import { prepareFolders } from "../gateway/folders.ts";
import { findOpenclaw, openclawSpec } from "../gateway/openclaw-spec.ts";
import { plainSpec } from "../gateway/plain-spec.ts";
import { GatewaySession } from "../gateway/session.ts";
import type { ChildUsers } from "../gateway/users.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { readMemory } from "../platform/memory.ts";
import type { ServiceSpec } from "../supervisor/spec.ts";

/** The image and a checkout keep it in the same place beside the sources. */
const CONTAINER = resolve(import.meta.dir, "../../../container");
/** Of the machine's memory, what the gateway's heap may take. Source: machine.md, GATEWAY_HEAP_MB. */
const HEAP_SHARE = 0.6;

export interface ServicesContext {
  readonly config: Config;
  readonly environment: Environment;
  readonly users: ChildUsers;
  readonly clock: Clock;
  readonly log: Logger;
  readonly isDiskFull: () => boolean;
  readonly onConfigRepaired: (event: ConfigEvent) => void;
}

/** The children of this machine, in the order they are shown. */
export function machineServices(context: ServicesContext): ServiceSpec[] {
  return [gatewayService(context), caddyService(context)];
}

function caddyService({ config, environment, users }: ServicesContext): ServiceSpec {
  return caddySpec({
    caddyfile: `${CONTAINER}/Caddyfile`,
    runtimeDir: `${config.runtimeDir}/caddy`,
    ports: config.ports,
    publicOrigin: config.publicOrigin,
    user: users.caddy,
    path: environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin",
  });
}

function gatewayService(context: ServicesContext): ServiceSpec {
  const { config, environment, users, clock, log } = context;
  const { dataDir } = config;
  const port = config.ports.gateway;
  const child = { dataDir, port, userName: users.agent?.name };
  const giveFolders = async (signal: AbortSignal, thorough = false): Promise<number> =>
    prepareFolders(dataDir, { owner: users.agent, clock, signal, thorough });

  if (config.gateway.command) {
    return plainSpec({
      command: config.gateway.command,
      port,
      dataDir,
      env: childEnvironment(environment, child),
      user: users.agent,
      prepare: async (signal) => void (await giveFolders(signal)),
    });
  }

  const file = new ConfigFile({
    dataDir,
    managed: {
      port,
      dataDir,
      publicOrigin: config.publicOrigin,
      allowedOrigins: config.dashboardOrigins,
      models: modelSource(environment),
    },
    owner: users.agent,
    clock,
  });
  const session = new GatewaySession({
    port,
    token: config.token,
    clock,
    log: log.child({ part: "gateway" }),
  });
  const cure = async (refusal: Refusal): Promise<boolean> => {
    if (refusal === "config") return tell(context, await file.restoreLastGood());
    if (refusal === "permission") return (await giveFolders(AbortSignal.timeout(60_000), true)) > 0;
    return false;
  };
  const program = lookUp(config.gateway.openclawDir);
  return openclawSpec({
    ...program,
    heapMb: config.gateway.heapMb ?? Math.floor((readMemory().totalBytes * HEAP_SHARE) / 2 ** 20),
    port,
    dataDir,
    env: openclawEnvironment(environment, { ...child, token: config.token }),
    user: users.agent,
    session,
    prepare: async (signal) => {
      // Said at each start, so that the status shows it and a later installation is found.
      findOpenclaw(config.gateway.openclawDir);
      await giveFolders(signal);
      tell(context, await file.prepare());
    },
    onAdmitted: () => file.remember(),
    cure,
    isDiskFull: context.isDiskFull,
    clock,
    log: log.child({ part: "gateway" }),
  });
}

/** The program as it will be started; where it is missing, `prepare` says so at each start. */
function lookUp(dir: string): { node: string; entry: string } {
  try {
    return findOpenclaw(dir);
  } catch {
    return { node: "node", entry: "openclaw.mjs" };
  }
}

function tell(context: ServicesContext, event: ConfigEvent | undefined): boolean {
  if (event) context.onConfigRepaired(event);
  return event !== undefined;
}
