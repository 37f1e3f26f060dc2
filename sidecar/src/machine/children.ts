import type { Config } from "../config.ts";
import type { Part } from "../parts.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { stopBudget } from "../stop-budget.ts";
import type { Exit, ServiceSpec, ServiceStatus } from "../supervisor/spec.ts";
import { Supervisor } from "../supervisor/supervisor.ts";
import type { Dir } from "../volume/dir.ts";
import { isVolumeError } from "../volume/volume-error.ts";

export interface ChildrenOptions {
  readonly config: Config;
  readonly specs: readonly ServiceSpec[];
  /** Our own folder on the volume, where the children are written down; stays open as long as the process lives. */
  readonly dir: Dir | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly redact: (text: string) => string;
  readonly onChange: (status: ServiceStatus) => void;
  readonly onExit: (service: string, exit: Exit) => void;
}

/** The machine's children, as parts that start and stop in their turn. */
export class Children {
  readonly #options: ChildrenOptions;
  readonly #supervisor: Supervisor;
  readonly #gatewayMs: number;
  readonly #caddyMs: number;
  readonly #sweepMs: number;
  /** This machine answers for its user no more: the gateway is not started again. */
  #gatewayEnded = false;
  /** Its files are in place. */
  #gatewayDue = false;

  constructor(options: ChildrenOptions) {
    this.#options = options;
    const { specs, log } = options;
    this.#supervisor = new Supervisor(specs, {
      ...options,
      log: log.child({ part: "supervisor" }),
    });
    const { gatewayMs, caddyMs, sweepMs } = stopBudget(options.config.killTimeoutMs);
    this.#gatewayMs = gatewayMs;
    this.#caddyMs = caddyMs;
    this.#sweepMs = sweepMs;
  }

  /** Ends what a killed life left behind, and passes the children's lines on. */
  async begin(): Promise<void> {
    try {
      await this.#supervisor.boot();
    } catch (error) {
      // A disk that fails is for the boot of the volume to tell; without it nothing of the machine could be seen.
      if (!isVolumeError(error)) throw error;
      this.#options.log.error({ error }, "Cannot read which children a killed sidecar had");
    }
    this.#supervisor.follow(({ service, stream, line, dropped }) =>
      this.#options.log.info({ service, stream, dropped }, line),
    );
  }

  statuses(): readonly ServiceStatus[] {
    return this.#supervisor.statuses();
  }

  /** With the memory each takes. */
  measuredStatuses(): readonly ServiceStatus[] {
    return this.#supervisor.measuredStatuses();
  }

  caddy(): Part {
    return this.#part("caddy", this.#caddyMs);
  }

  gateway(): Part {
    const part = this.#part("gateway", this.#gatewayMs);
    return {
      ...part,
      start: async (signal) => {
        this.#gatewayDue = true;
        if (!this.#gatewayEnded) await part.start(signal);
      },
    };
  }

  /** Stands for whatever the children have left running when they are gone. */
  sweep(): Part {
    return {
      name: "sweep",
      start: async () => undefined,
      stop: async () => {
        const left = await this.#supervisor.sweep({ budgetMs: this.#sweepMs });
        if (left > 0) {
          this.#options.log.error(
            { processes: left },
            "Processes of the machine could not be ended",
          );
        }
      },
    };
  }

  /** Begins a restart. False if there is no such service. Throws where it must not run. */
  restart(name: string): boolean {
    if (!this.#supervisor.names.includes(name)) return false;
    if (name === "gateway" && this.#gatewayEnded) {
      throw new Error('Cannot restart "gateway": this machine may not run it any more');
    }
    if (name === "gateway" && !this.#gatewayDue) {
      throw new Error('Cannot restart "gateway": the volume is not ready for it');
    }
    this.#inBackground(name, this.#supervisor.restart(name));
    return true;
  }

  /** Ends the gateway for good: two agents of one user must not both answer. */
  async endGateway(): Promise<void> {
    this.#gatewayEnded = true;
    await this.#supervisor.stop(["gateway"], { budgetMs: this.#gatewayMs });
  }

  /** Ends the gateway, does the work on its files, and starts it again. */
  async withoutGateway(work: () => Promise<void>): Promise<void> {
    this.#gatewayDue = false;
    await this.#supervisor.stop(["gateway"], { budgetMs: this.#gatewayMs });
    await work();
    this.#gatewayDue = true;
    if (!this.#gatewayEnded) this.#inBackground("gateway", this.#supervisor.start("gateway"));
  }

  /** Nothing is started any more. */
  close(): void {
    this.#supervisor.close();
  }

  /** The time is up: what runs is killed. */
  hurry(): void {
    this.#supervisor.hurry();
  }

  end(): void {
    this.#supervisor.end();
  }

  /** A service is started without waiting for it: what becomes of it is in its status. */
  #part(name: string, budgetMs: number): Part {
    return {
      name,
      start: async () => this.#inBackground(name, this.#supervisor.start(name)),
      stop: () => this.#supervisor.stop([name], { budgetMs }),
    };
  }

  #inBackground(service: string, work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#options.log.error({ service, error }, "Cannot start a service");
    });
  }
}
