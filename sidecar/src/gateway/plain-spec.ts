import { connect } from "node:net";

import type { ChildProbe, ChildService, ChildUser } from "./child-service.ts";
import { requireFreePort } from "./taken-port.ts";

const ADMISSION_TIMEOUT_MS = 5 * 60_000;
const LIVENESS = { everyMs: 10_000, timeoutMs: 3_000, misses: 3, graceMs: 30_000 };

export interface PlainOptions {
  /** The command and its arguments, from GATEWAY_COMMAND. */
  readonly command: readonly [string, ...string[]];
  readonly port: number;
  /** Absolute path of the volume. */
  readonly dataDir: string;
  /** From `childEnvironment`; says GATEWAY_PORT. */
  readonly env: Readonly<Record<string, string>>;
  readonly user?: ChildUser | undefined;
  /** Puts the folders in order before each start. */
  readonly prepare: (signal: AbortSignal) => Promise<void>;
}

/**
 * Any other command in the gateway's place: ready when its port accepts, alive while it does, ended by SIGTERM. None of
 * OpenClaw's rules apply.
 */
export function plainSpec(options: PlainOptions): ChildService {
  const { command, port, dataDir, env, user } = options;
  const accepts: ChildProbe = (_running, signal) => tryConnect(port, signal);
  return {
    name: "gateway",
    async launch(signal) {
      await options.prepare(signal);
      requireFreePort(port, "GATEWAY_PORT");
      return { command, env, cwd: dataDir, user };
    },
    admission: { probe: accepts, timeoutMs: ADMISSION_TIMEOUT_MS },
    liveness: { ...LIVENESS, probe: accepts },
  };
}

/** Resolves to undefined where 127.0.0.1:port accepts a connection, to the reason where it does not. */
function tryConnect(port: number, signal: AbortSignal): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const socket = connect({ host: "127.0.0.1", port });
  const onAbort = (): void => settle(`port ${port} does not answer`);
  const settle = (reason: string | undefined): void => {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
    resolve(reason);
  };
  socket.once("connect", () => settle(undefined));
  socket.once("error", () => settle(`nothing listens on port ${port}`));
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return promise;
}
