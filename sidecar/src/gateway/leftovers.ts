import { readFileSync, readdirSync } from "node:fs";

import type { Clock } from "../platform/clock.ts";

const POLL_MS = 100;
/** Helpers of a killed gateway end by themselves in well under a second. */
const PATIENCE_MS = 5_000;
const KILL_MS = 2_000;

/** Parts of the command lines of a gateway and of the helpers that outlive its process group. */
const GATEWAY_COMMANDS = [
  "openclaw-gateway",
  "openclaw.mjs\0gateway",
  "/spawn-broker/worker.js",
  "/sqlite-readonly-location.worker.js",
];

export interface LeftoversOptions {
  /** The gateway's OPENCLAW_STATE_DIR: only processes that were started for this very state are looked at. */
  readonly stateDir: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly kill?: (pid: number) => void;
}

/**
 * Resolves when no process of an earlier gateway is left that holds the state: a new one would exit with 78, or wait for
 * the lock. Remains that do not go by themselves are killed. Throws where one survives that.
 */
export async function endLeftovers(options: LeftoversOptions): Promise<void> {
  const { stateDir, clock, kill = killProcess } = options;
  let left = findGateways(stateDir);
  const start = clock.monotonic();
  let killed = false;
  while (left.length > 0) {
    const waited = clock.monotonic() - start;
    if (waited > PATIENCE_MS + KILL_MS) {
      throw new Error(
        `Cannot start the gateway: processes ${left.join(", ")} of the last one do not end`,
      );
    }
    if (waited > PATIENCE_MS && !killed) {
      for (const pid of left) kill(pid);
      killed = true;
    }
    await clock.sleep(POLL_MS, options.signal);
    left = findGateways(stateDir);
  }
}

/** Pids of gateways, and of their helpers, that run for `stateDir`; zombies hold nothing and do not count. */
export function findGateways(stateDir: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && isGateway(pid, stateDir));
}

function isGateway(pid: number, stateDir: string): boolean {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    if (!GATEWAY_COMMANDS.some((part) => command.includes(part))) return false;
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
    return environment.includes(`OPENCLAW_STATE_DIR=${stateDir}`);
  } catch {
    // It ended, or is not ours to look at.
    return false;
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile.
  }
}
