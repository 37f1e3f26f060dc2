import { version } from "../../../package.json";
import type { Config, Environment } from "../config.ts";
import { findChildUsers, type ChildUsers } from "../gateway/users.ts";
import { ControlPlane } from "../health/control-plane.ts";
import type { Report } from "../health/report.ts";
import type { Part } from "../parts.ts";
import type { Clock } from "../platform/clock.ts";
import { identifyMachine, type MachineIdentity } from "../platform/fly.ts";
import type { Logger } from "../platform/log.ts";
import type { Redactor } from "../platform/redact.ts";
import { Server } from "../server/server.ts";
import type { Exit, ServiceStatus } from "../supervisor/spec.ts";
import { Watchdog } from "../supervisor/watchdog.ts";
import type { Dir } from "../volume/dir.ts";
import { OWN_FOLDER } from "../volume/marker.ts";
import { Root } from "../volume/root.ts";
import { isVolumeError } from "../volume/volume-error.ts";
import { Children } from "./children.ts";
import { Disk } from "./disk.ts";
import { furnish } from "./furnish.ts";
import { machineApps } from "./machine-app.ts";
import { machineReport } from "./machine-report.ts";
import { machineServices } from "./services.ts";
import { Status } from "./status.ts";
import { userStore, type UserStore } from "./user-store.ts";
import { VolumeLife, type VolumeEvent } from "./volume-life.ts";

export interface AssemblyOptions {
  readonly config: Config;
  readonly environment: Environment;
  readonly clock: Clock;
  readonly log: Logger;
  readonly redact: Redactor;
}

export type PartName =
  | "server"
  | "heartbeat"
  | "caddy"
  | "volume"
  | "replicator"
  | "gateway"
  | "sweep";

/** All parts of one machine, introduced to each other. Building them starts nothing. */
export class Assembly {
  readonly parts: Readonly<Record<PartName, Part>>;
  readonly #options: AssemblyOptions;
  readonly #users: ChildUsers;
  readonly #identity: MachineIdentity;
  readonly #root: Root;
  readonly #disk: Disk;
  readonly #children: Children;
  readonly #watchdog: Watchdog;
  readonly #volume: VolumeLife;
  readonly #plane: ControlPlane | undefined;
  readonly #status: Status;
  readonly #store: UserStore | undefined;
  readonly #startedAt: number;
  #isServing = false;
  #lastActive: number | undefined;

  constructor(options: AssemblyOptions) {
    this.#options = options;
    const { config, environment, clock, log, redact } = options;
    this.#startedAt = clock.monotonic();
    this.#users = config.dropPrivileges ? findChildUsers() : { agent: undefined, caddy: undefined };
    this.#identity = identifyMachine(environment);
    this.#root = new Root(config.dataDir);
    this.#watchdog = new Watchdog({ clock });
    this.#disk = new Disk({ root: this.#root, clock, log, onLow: (low) => this.#onDisk(low) });
    this.#children = this.#makeChildren();
    this.#store = userStore(config, {
      clock,
      log: log.child({ part: "backup" }),
      onSecrets: (secrets) => redact.add(secrets),
      onEvent: ({ type, message, details }) => {
        this.#status.event(type, { message, ...details });
        this.#status.refresh();
      },
    });
    this.#volume = this.#makeVolume();
    this.#plane = this.#makeControlPlane();
    this.#status = new Status(
      {
        services: () => this.#children.statuses(),
        volume: this.#volume,
        disk: this.#disk,
        credentials: this.#store?.credentials,
      },
      { clock, log, plane: this.#plane },
    );
    this.parts = this.#makeParts();
  }

  /** True once requests are answered. */
  get isServing(): boolean {
    return this.#isServing;
  }

  /** What comes before every part: ends what a killed life left behind, and watches over this one. */
  async begin(): Promise<void> {
    const { log, config } = this.#options;
    if (config.dropPrivileges && (!this.#users.agent || !this.#users.caddy)) {
      log.warn(
        {},
        "No users agent and caddy to run the children as: they run as the sidecar itself",
      );
    }
    this.#watchdog.start();
    await this.#disk.start();
    await this.#children.begin();
    this.#status.start();
    this.#status.event("started", { version });
    this.#store?.credentials?.start();
  }

  /** All parts were started. */
  started(): void {
    this.#status.started();
  }

  /** A part could not be started; the machine stays up for people to see that. */
  fail(error: unknown): void {
    this.#status.failed(error);
    this.#status.event("error", {
      message: error instanceof Error ? error.message : String(error),
    });
  }

  /** The machine is about to stop: not ready any more, and nothing new is begun. */
  close(): void {
    this.#children.close();
    this.#status.stopping();
    this.#status.event("stopped", {});
  }

  /** The time is up: children are killed at once. */
  hurry(): void {
    this.#children.hurry();
  }

  /** After the last part. */
  end(): void {
    this.#children.end();
    this.#disk.stop();
    this.#store?.credentials?.stop();
    this.#status.end();
    this.#watchdog.stop();
    this.#root[Symbol.dispose]();
  }

  report(): Report {
    return machineReport({
      identity: this.#identity,
      version,
      user: this.#options.config.userId,
      storeName: this.#store?.store.name ?? "off",
      history: this.#status.history,
      uptimeMs: this.#options.clock.monotonic() - this.#startedAt,
      services: this.#children.measuredStatuses(),
      volume: this.#volume,
      space: this.#disk.space,
      lastActive: this.#lastActive,
    });
  }

  #makeChildren(): Children {
    const { config, environment, clock, log, redact } = this.#options;
    const specs = machineServices({
      config,
      environment,
      users: this.#users,
      clock,
      log,
      isDiskFull: () => this.#disk.isLow,
      onConfigRepaired: ({ details }) => {
        log.warn(details, "OpenClaw's config was repaired");
        this.#status.event("config_repaired", details);
      },
    });
    return new Children({
      config,
      specs,
      dir: this.#openOwnFolder(),
      clock,
      log,
      redact,
      onChange: (status) => this.#onService(status),
      onExit: (service, exit) => this.#onExit(service, exit),
    });
  }

  /** Our folder on the volume, open for as long as the process lives; undefined where the disk will not have it, which the boot then says. */
  #openOwnFolder(): Dir | undefined {
    try {
      return this.#root.dir(OWN_FOLDER, { links: "refuse", create: { mode: 0o700 } });
    } catch (error) {
      if (!isVolumeError(error)) throw error;
      this.#options.log.error({ error }, "Cannot keep track of the children on the volume");
      return undefined;
    }
  }

  #makeVolume(): VolumeLife {
    const { config, environment, clock, log } = this.#options;
    return new VolumeLife({
      root: this.#root,
      user: config.userId,
      machine: this.#identity.id,
      store: this.#store?.store,
      renewed: () => this.#store?.credentials?.renewed(),
      fence: config.backup?.fence === false ? "off" : "on",
      agent: this.#users.agent,
      clock,
      log: log.child({ part: "backup" }),
      furnish: (how) =>
        furnish({ ...how, config, environment, owner: this.#users.agent, clock, log }),
      endGateway: () => this.#children.endGateway(),
      withoutGateway: (work) => this.#children.withoutGateway(work),
      onEvent: (event) => this.#onVolume(event),
      onChange: () => this.#status.refresh(),
    });
  }

  #makeControlPlane(): ControlPlane | undefined {
    const { config, clock, log } = this.#options;
    if (!config.controlPlane) return undefined;
    return new ControlPlane({
      ...config.controlPlane,
      machineId: this.#identity.id,
      clock,
      log: log.child({ part: "control-plane" }),
      report: () => this.report(),
    });
  }

  #makeParts(): Record<PartName, Part> {
    const { config, clock, log } = this.#options;
    const apps = machineApps({
      config,
      health: {
        readiness: () => this.#status.readiness(),
        report: () => this.report(),
        sync: (signal) => this.#volume.flush(signal),
        restart: (name) => this.#children.restart(name),
      },
      volume: this.#volume,
      disk: this.#disk,
      owner: this.#users.agent,
      credentials: this.#store?.credentials,
      isStopping: () => this.#status.isStopping,
      onUse: () => (this.#lastActive = clock.now()),
      clock,
      log,
    });
    const server = new Server({ app: apps.outside, listen: { port: config.ports.sidecar }, log });
    const local = new Server({ app: apps.local, listen: { socket: config.socket }, log });
    return {
      server: {
        name: "server",
        start: async (signal) => {
          await server.start(signal);
          this.#isServing = true;
          await local.start(signal).catch((error: unknown) => {
            log.warn({ error }, "No local socket: commands on this machine need the token");
          });
        },
        stop: async (signal) => {
          await Promise.all([server.stop(signal), local.stop(signal)]);
        },
      },
      heartbeat: {
        name: "heartbeat",
        start: async () => this.#plane?.start(),
        stop: async (signal) => this.#plane?.stop(signal),
      },
      caddy: this.#children.caddy(),
      volume: {
        name: "volume",
        start: (signal) => this.#volume.boot(signal),
        // Its start ends with the signal, and its last commit is the replicator's.
        stop: async () => undefined,
      },
      replicator: {
        name: "replicator",
        start: () => this.#volume.startBackup(),
        stop: (signal) => this.#volume.stop(signal),
      },
      gateway: this.#children.gateway(),
      sweep: this.#children.sweep(),
    };
  }

  #onService({ name, state, reason }: ServiceStatus): void {
    if (state === "failed") this.#status.event("crash_loop", { service: name, reason });
    this.#status.refresh();
  }

  #onExit(service: string, { asked, code, signal, oomKilled }: Exit): void {
    if (!asked) this.#status.event("restart", { service, code, signal, oomKilled });
  }

  #onVolume(event: VolumeEvent): void {
    this.#status.tell(event);
    this.#status.refresh();
  }

  #onDisk(low: boolean): void {
    if (low) this.#status.event("disk_low", { ...this.#disk.space });
    this.#status.refresh();
  }
}
