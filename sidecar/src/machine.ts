import { mkdirSync } from "node:fs";

import { ConfigError, parseConfig, secretsOf, type Config, type Environment } from "./config.ts";
import { Assembly } from "./machine/assembly.ts";
import { Parts, type StopStage } from "./parts.ts";
import { aborted } from "./platform/aborted.ts";
import { systemClock, type Clock } from "./platform/clock.ts";
import { createLogger, type Logger } from "./platform/log.ts";
import { createRedactor } from "./platform/redact.ts";
import { stopBudget, type StopBudget } from "./stop-budget.ts";

export interface RunOptions {
  readonly environment: Environment;
  /** Aborts when the machine shall stop. */
  readonly stop: AbortSignal;
  /** Aborts when it shall stop at once. */
  readonly hurry: AbortSignal;
}

/** Source: machine.md, Supervisor: 0 asked or idle, 1 internal, 78 environment. */
const EXIT = { ok: 0, internal: 1, environment: 78 };

/**
 * In this order the parts start. The server and the heartbeat come first, so that a machine that is booting can be looked
 * at; the gateway comes last, when its files are whole and being watched.
 */
const START = ["sweep", "server", "heartbeat", "caddy", "volume", "replicator", "gateway"] as const;

/**
 * In these stages they stop, which is not the reverse: the last commit leaves when nothing can write any more, and the
 * server and the heartbeat say how that is going.
 */
function stopStages(budget: StopBudget): StopStage[] {
  return [
    { parts: ["caddy", "gateway"], budgetMs: budget.gatewayMs },
    { parts: ["sweep"], budgetMs: budget.sweepMs },
    { parts: ["volume", "replicator"], budgetMs: budget.commitMs },
    { parts: ["heartbeat"], budgetMs: 2_000 },
    { parts: ["server"], budgetMs: 1_000 },
  ];
}

/** Runs the machine from the first part to the last. Resolves to the exit code, at the latest when the stop budget is used up. */
export async function runMachine(options: RunOptions): Promise<number> {
  const { environment, stop, hurry } = options;
  const clock = systemClock;
  let config: Config;
  try {
    config = parseConfig(environment);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    createLogger().error({ faults: error.faults }, error.message);
    return EXIT.environment;
  }
  const redact = createRedactor(secretsOf(environment));
  const log = createLogger({ level: config.logLevel, redact });
  for (const warning of config.warnings) log.warn({}, warning);
  // A working folder on the volume would keep it busy when it is unmounted.
  process.chdir("/");
  mkdirSync(config.dataDir, { recursive: true });
  const machine = new Assembly({ config, environment, clock, log, redact });
  return new Run(machine, { config, clock, log }).run(stop, hurry);
}

/** One life of the machine. */
class Run {
  readonly #machine: Assembly;
  readonly #parts: Parts;
  readonly #budget: StopBudget;
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(
    machine: Assembly,
    {
      config,
      clock,
      log,
    }: { readonly config: Config; readonly clock: Clock; readonly log: Logger },
  ) {
    this.#machine = machine;
    this.#clock = clock;
    this.#log = log;
    this.#budget = stopBudget(config.killTimeoutMs);
    this.#parts = new Parts(
      START.map((name) => machine.parts[name]),
      log,
    );
  }

  async run(stop: AbortSignal, hurry: AbortSignal): Promise<number> {
    let code = EXIT.ok;
    try {
      await this.#machine.begin();
      await this.#parts.start(stop);
      this.#machine.started();
    } catch (error) {
      if (!stop.aborted) {
        this.#log.error({ error }, "Cannot start the machine");
        // Without its server nobody could see or help a machine that merely stays up.
        if (!this.#machine.isServing) code = EXIT.internal;
        else this.#machine.fail(error);
      }
    }
    if (code === EXIT.ok) await aborted(stop);
    const late = this.#clock.sleep(this.#budget.exitMs).then(() => "late" as const);
    const outcome = await Promise.race([this.#stop(stop, hurry), late]);
    if (outcome === "late") this.#log.error({}, "The time to stop is used up; exiting as it is");
    return code;
  }

  async #stop(stop: AbortSignal, hurry: AbortSignal): Promise<"stopped"> {
    const reason = stop.reason instanceof Error ? stop.reason.message : "a part failed to start";
    this.#log.info({ reason }, "The machine is stopping");
    this.#machine.close();
    const onHurry = (): void => this.#machine.hurry();
    if (hurry.aborted) onHurry();
    else hurry.addEventListener("abort", onHurry, { once: true });
    await this.#parts.stop(stopStages(this.#budget), hurry);
    this.#machine.end();
    this.#log.info({}, "The machine has stopped");
    return "stopped";
  }
}
