/** How the time between the first signal and the platform's cut is shared out. All in milliseconds. */
export interface StopBudget {
  /** Caddy: it only has to let go of its connections. */
  readonly caddyMs: number;
  /** From the signal until the gateway's group is killed. */
  readonly gatewayMs: number;
  /** Ending what is left of the tree. */
  readonly sweepMs: number;
  /** The last scan and commit. */
  readonly commitMs: number;
  /** From the signal until we exit, whatever is not done by then. */
  readonly exitMs: number;
}

const EXIT_BEFORE_CUT_MS = 3_000;
const SWEEP_MS = 1_000;
const COMMIT = { minMs: 10_000, maxMs: 25_000 };

/**
 * Shares out `killTimeoutMs`. At 120 s: gateway 76 s, sweep 1 s, commit 25 s, exit after 117 s, the rest is slack. With
 * less the shares shrink, but the last commit keeps 10 s: what is not committed is lost, a cut-off turn is resumed.
 * Source: machine.md, Supervisor.
 */
export function stopBudget(killTimeoutMs: number): StopBudget {
  const exitMs = killTimeoutMs - EXIT_BEFORE_CUT_MS;
  const commitMs = Math.min(COMMIT.maxMs, Math.max(COMMIT.minMs, (killTimeoutMs * 25) / 120));
  const slackMs = killTimeoutMs / 8;
  const gatewayMs = Math.max(1_000, exitMs - SWEEP_MS - commitMs - slackMs);
  return { caddyMs: Math.min(5_000, gatewayMs), gatewayMs, sweepMs: SWEEP_MS, commitMs, exitMs };
}
