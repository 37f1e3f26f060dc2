import { existsSync } from "node:fs";
import { join } from "node:path";

import { aborted } from "../platform/aborted.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { ChildService, ChildUser, ChildVerdict } from "./child-service.ts";
import { classifyExit, type Refusal } from "./exit.ts";
import { getJson } from "./http-probe.ts";
import { endLeftovers } from "./leftovers.ts";
import { stopOpenclaw, type StopSession } from "./openclaw-stop.ts";
import type { GatewaySession } from "./session.ts";
import { requireFreePort } from "./taken-port.ts";

const ADMISSION_TIMEOUT_MS = 5 * 60_000;
const LIVENESS = { everyMs: 10_000, timeoutMs: 3_000, misses: 3, graceMs: 120_000 };
/** The kernel takes the gateway before the sidecar and Caddy; the agent's own tools inherit this and go with it. */
const OOM_SCORE_ADJ = 500;

/** The runtime and the program of a pinned OpenClaw. */
export interface OpenclawProgram {
  readonly node: string;
  readonly entry: string;
}

/** The part of the session that the service needs. */
type SpecSession = StopSession & Pick<GatewaySession, "stop" | "trouble">;

export interface OpenclawOptions extends OpenclawProgram {
  /** MiB of JavaScript heap. */
  readonly heapMb: number;
  readonly port: number;
  /** Absolute path of the volume. */
  readonly dataDir: string;
  /** From `openclawEnvironment`. */
  readonly env: Readonly<Record<string, string>>;
  readonly user?: ChildUser | undefined;
  readonly session: SpecSession;
  /** Puts folders and config in order before each start. */
  readonly prepare: (signal: AbortSignal) => Promise<void>;
  /** Called after each admission: what was prepared is good. */
  readonly onAdmitted: () => Promise<void>;
  /** One try to do away with the cause of a refusal. Resolves to false where there was nothing to do. */
  readonly cure: (refusal: Refusal) => Promise<boolean>;
  /** True while the volume is full: then a failing session is no reason to restart. */
  readonly isDiskFull: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Finds what `npm ci` with container/openclaw has put under `dir`. Throws where it is not there. */
export function findOpenclaw(dir: string): OpenclawProgram {
  const node = join(dir, "node_modules", `node-linux-${process.arch}`, "bin", "node");
  const entry = join(dir, "node_modules", "openclaw", "openclaw.mjs");
  for (const file of [node, entry]) {
    if (!existsSync(file)) throw new Error(`Cannot find OpenClaw in "${dir}": no "${file}"`);
  }
  return { node, entry };
}

/** OpenClaw as a service. Source: machine.md, Children. */
export function openclawSpec(options: OpenclawOptions): ChildService {
  const { node, entry, heapMb, port, dataDir, env, user, session, clock, log } = options;
  let admitted = false;
  /** Cures tried since the gateway last ran; one each, or a broken machine would cure itself for ever. */
  const tried = new Set<Refusal>();

  const isStarted = async (signal: AbortSignal): Promise<string | undefined> => {
    const { status, body } = await getJson(port, "/startupz", signal);
    // Every unknown path answers 200 with a page, so only this word in JSON counts.
    const state = fieldOf(body, "status");
    if (status === 200 && state === "started") return undefined;
    return typeof state === "string" ? state : `/startupz answers ${status}`;
  };

  return {
    name: "gateway",
    async launch(signal) {
      admitted = false;
      await session.stop();
      await endLeftovers({ stateDir: join(dataDir, "openclaw"), clock, signal });
      await options.prepare(signal);
      requireFreePort(port, "GATEWAY_PORT");
      // SIGUSR1 would open Node's inspector to the agent's own code.
      const flags = ["--disable-sigusr1", `--max-old-space-size=${heapMb}`];
      return {
        command: [node, ...flags, entry, "gateway", "run"],
        env,
        cwd: dataDir,
        user,
        oomScoreAdj: OOM_SCORE_ADJ,
      };
    },
    admission: {
      async probe(_running, signal) {
        const waitingFor = await isStarted(signal);
        if (waitingFor !== undefined) return waitingFor;
        if (!admitted) {
          admitted = true;
          tried.clear();
          session.start();
          await options.onAdmitted();
        }
        return undefined;
      },
      timeoutMs: ADMISSION_TIMEOUT_MS,
    },
    liveness: {
      ...LIVENESS,
      async probe(_running, signal) {
        const { body } = await getJson(port, "/healthz", signal);
        if (fieldOf(body, "status") !== "live") return "/healthz does not say live";
        return options.isDiskFull() ? undefined : session.trouble;
      },
    },
    async stop(running, stop) {
      const report = await stopOpenclaw(running, {
        ...stop,
        session,
        clock,
        requestId: crypto.randomUUID(),
        isStarted: async () => admitted || (await isStarted(stop.signal)) === undefined,
      });
      log.info({ ...report, budgetMs: stop.budgetMs }, "The gateway was asked to end");
      await Promise.race([running.exited, aborted(stop.signal)]);
      await session.stop();
    },
    async judge(exit) {
      await session.stop();
      const end = classifyExit(exit);
      if (end.kind === "done") return verdict("restart", "ended by itself");
      if (end.kind !== "refused") return verdict("backoff", end.reason);
      const reason = REFUSAL_REASONS[end.refusal];
      // A command that somebody runs, or remains that each start waits for: both end, and waiting is the cure.
      if (end.refusal === "owner") return verdict("backoff", reason);
      if (tried.has(end.refusal)) return verdict("failed", reason);
      tried.add(end.refusal);
      return verdict((await options.cure(end.refusal)) ? "restart" : "failed", reason);
    },
  };
}

/** What people read in the status; each says what to do where the machine cannot help itself. */
const REFUSAL_REASONS: Readonly<Record<Refusal, string>> = {
  owner: "another process holds OpenClaw's state",
  config: "OpenClaw does not accept its config: see openclaw/openclaw.json and the gateway's log",
  permission: "OpenClaw may not read or write its state: something in openclaw/ has another owner",
  corrupt: "a database of OpenClaw is damaged: restore openclaw/ to an earlier position",
  newer_schema:
    "OpenClaw's state was written by a newer version: run that version, or restore openclaw/ to a position before the update",
  unknown: "OpenClaw refuses to start (exit 78): see the gateway's log",
};

function verdict(kind: ChildVerdict["kind"], reason: string): ChildVerdict {
  return { kind, reason };
}

function fieldOf(body: unknown, name: string): unknown {
  return typeof body === "object" && body !== null
    ? (body as Record<string, unknown>)[name]
    : undefined;
}
