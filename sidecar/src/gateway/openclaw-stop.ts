import { z } from "zod";

import type { Clock } from "../platform/clock.ts";
import type { RunningChild } from "./child-service.ts";
import type { GatewayIdentity, GatewaySession } from "./session.ts";

/** A running turn may go on for this long before it is interrupted. */
const DRAIN_MS = 20_000;
/** What a gateway needs at most between a handoff's SIGTERM and its exit: 45 s for the turn, 10 s to clean up. */
const HANDOFF_MS = 56_000;
/** Below this share a handoff would only be cut off by the kill. */
const HANDOFF_MIN_BUDGET_MS = 60_000;
/** What a plain SIGTERM gets at least: an idle gateway takes 0.3 to 2.3 s. */
const SIGTERM_MS = 10_000;
const POLL_MS = 500;
const RPC_TIMEOUT_MS = 5_000;

const preparedSchema = z.looseObject({
  status: z.enum(["ready", "draining", "busy"]),
  suspensionId: z.string().min(1).optional(),
});
const statusSchema = z.looseObject({ status: z.string() });

/** The part of the session that a stop speaks through. */
export type StopSession = Pick<GatewaySession, "start" | "identity" | "phase" | "request">;

export interface OpenclawStopOptions {
  /** Milliseconds until the supervisor kills the group. */
  readonly budgetMs: number;
  /** Aborts when the deadline is now. */
  readonly signal: AbortSignal;
  readonly session: StopSession;
  /** True once the gateway is past its start, where it must not be cut off: it may be migrating. */
  readonly isStarted: () => Promise<boolean>;
  readonly clock: Clock;
  /** Unique for this stop. */
  readonly requestId: string;
}

/** How a stop went, for the log. */
export interface StopReport {
  /**
   * `drained`: no work was left. `handoff`: the next boot takes the turn up. `undrained`: there was no time for that.
   * `sigterm`: the gateway could not be asked. `exited`: it ended by itself.
   */
  readonly path: "exited" | "sigterm" | "drained" | "handoff" | "undrained";
  /** Why the gateway could not be asked, or refused. */
  readonly error?: unknown;
}

/**
 * Ends OpenClaw within the budget. A plain SIGTERM waits up to 325 s for a running turn; so work is refused first, the
 * turn gets a while to finish, and is then handed to the next boot. Resolves when the SIGTERM is sent. Source:
 * machine.md, Children, Stop.
 */
export async function stopOpenclaw(
  child: RunningChild,
  options: OpenclawStopOptions,
): Promise<StopReport> {
  const { budgetMs, clock, session } = options;
  const deadline = clock.monotonic() + budgetMs;
  const left = (): number => deadline - clock.monotonic();
  const exit = watchExit(child, options.signal);
  if (!(await waitFor(options.isStarted, () => left() > SIGTERM_MS, { clock, exit }))) {
    return terminate(child, exit, { path: "sigterm" });
  }
  session.start();
  const connected = async (): Promise<boolean> => session.identity !== undefined;
  const until = Math.max(left() - 3_000, left() / 2);
  await waitFor(connected, () => left() > until, { clock, exit });
  return terminate(child, exit, await drain(options, { exit, left }));
}

async function drain(
  options: OpenclawStopOptions,
  times: { readonly exit: AbortSignal; readonly left: () => number },
): Promise<StopReport> {
  const { session, clock, requestId } = options;
  const { exit, left } = times;
  const { identity } = session;
  const mayHandOff = left() >= HANDOFF_MIN_BUDGET_MS;
  const reserveMs = mayHandOff ? Math.max(HANDOFF_MS, left() - DRAIN_MS) : SIGTERM_MS;
  try {
    const prepared = preparedSchema.parse(
      await session.request(
        "gateway.suspend.prepare",
        { requestId, terminalPolicy: "terminate", drain: true },
        RPC_TIMEOUT_MS,
      ),
    );
    const { status, suspensionId } = prepared;
    if (status === "ready") return { path: "drained" };
    if (suspensionId === undefined) return { path: "sigterm", error: `it is ${status}` };
    const isReady = async (): Promise<boolean> => {
      if (session.phase === "prepared") return true;
      const answer = await session.request(
        "gateway.suspend.status",
        { suspensionId },
        RPC_TIMEOUT_MS,
      );
      return statusSchema.parse(answer).status === "ready";
    };
    if (await waitFor(isReady, () => left() > reserveMs, { clock, exit })) {
      return { path: "drained" };
    }
    if (!mayHandOff || !identity || exit.aborted) return { path: "undrained" };
    await handOff(session, suspensionId, identity);
    return { path: "handoff" };
  } catch (error) {
    // The gateway went away, or does not know suspensions: the signal is all there is.
    return { path: "sigterm", error };
  }
}

async function handOff(
  session: StopSession,
  suspensionId: string,
  target: GatewayIdentity,
): Promise<void> {
  await session.request("gateway.suspend.handoff", { suspensionId, target }, RPC_TIMEOUT_MS);
}

/** SIGTERM to the process alone: its helpers follow it, and a second signal would be ignored. */
function terminate(child: RunningChild, exit: AbortSignal, report: StopReport): StopReport {
  if (exit.aborted) return { path: "exited" };
  child.signal("SIGTERM");
  return report;
}

/** Asks until yes; false when `mayWait` says no or the child is gone. A question that fails counts as a no. */
async function waitFor(
  question: () => Promise<boolean>,
  mayWait: () => boolean,
  context: { readonly clock: Clock; readonly exit: AbortSignal },
): Promise<boolean> {
  const { clock, exit } = context;
  while (!exit.aborted) {
    if (await question().catch(() => false)) return true;
    if (!mayWait()) return false;
    await clock.sleep(POLL_MS, exit).catch(() => undefined);
  }
  return false;
}

/** Aborts when the child has ended or the stop's own signal does. */
function watchExit(child: RunningChild, signal: AbortSignal): AbortSignal {
  const exit = new AbortController();
  void child.exited.then(() => exit.abort());
  return AbortSignal.any([exit.signal, signal]);
}
