import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { Dir } from "../volume/dir.ts";
import { ChildLog, type ServiceLine } from "./child-log.ts";
import { spawnChild, type Child } from "./child.ts";
import { OomWatch } from "./oom-watch.ts";
import { listProcesses } from "./process-list.ts";
import { treeBytes } from "./process-tree.ts";
import { Reaper } from "./reaper.ts";
import { Roster } from "./roster.ts";
import { Service } from "./service.ts";
import type { Exit, Launch, ServiceSpec, ServiceStatus } from "./spec.ts";

const HEARTBEAT_MS = 1_000;

export interface SupervisorOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** The machine's private folder, for children.json; without it a killed life's children are not found. Stays the caller's. */
  readonly dir?: Dir | undefined;
  /** Replaces the secrets in a child's line. */
  readonly redact?: (line: string) => string;
  /** After each change of a service's state or readiness. */
  readonly onChange?: (status: ServiceStatus) => void;
  /** After each end of a service's process. */
  readonly onExit?: (service: string, exit: Exit) => void;
}

interface Member {
  readonly service: Service;
  readonly lines: ChildLog;
}

/** The services of the machine. Knows none of them: what they are is in their specs. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #roster: Roster;
  readonly #reaper: Reaper;
  readonly #oom: OomWatch;
  readonly #members: ReadonlyMap<string, Member>;
  readonly #followers = new Set<(line: ServiceLine) => void>();
  #closing = false;
  #cancelBeat: (() => void) | undefined;

  constructor(specs: readonly ServiceSpec[], options: SupervisorOptions) {
    this.#options = options;
    this.#roster = new Roster(options);
    this.#reaper = new Reaper(options.clock);
    this.#oom = new OomWatch(options.clock);
    this.#members = new Map(specs.map((spec) => [spec.name, this.#member(spec)]));
  }

  get names(): readonly string[] {
    return [...this.#members.keys()];
  }

  /** Orphans of the machine taken since the boot. */
  get reaped(): number {
    return this.#reaper.reaped;
  }

  /**
   * Becomes the parent of all orphans, and ends what a killed sidecar left running. Starts no service.
   * Throws if that sidecar is alive after all.
   */
  async boot(): Promise<void> {
    const { log } = this.#options;
    try {
      this.#reaper.start();
    } catch (error) {
      log.error({ error }, "Orphans will not be reaped");
    }
    this.#beat();
    const leftovers = await this.#roster.takeOver();
    if (leftovers > 0) log.warn({ processes: leftovers }, "Ended what a killed sidecar had left");
  }

  /** Resolves once the service is up or has died: its status tells. Throws if there is none of that name, or after `close`. */
  async start(name: string): Promise<void> {
    await this.#startable("start", name).start();
  }

  /** As `start`, after a stop. */
  async restart(name: string, options: { readonly budgetMs?: number } = {}): Promise<void> {
    await this.#startable("restart", name).restart(options);
  }

  /** Asks these to end, all at once, and kills after `budgetMs` what has not. Resolves when all have ended; never rejects for their sake. */
  async stop(names: readonly string[], options: { readonly budgetMs: number }): Promise<void> {
    await Promise.all(names.map((name) => this.#get("stop", name).service.stop(options)));
  }

  /** From now on nothing is started by request. What runs goes on until it is stopped. */
  close(): void {
    this.#closing = true;
  }

  /** The time is up: kills every service at once and shortens every wait. Stops under way resolve soon. */
  hurry(): void {
    this.close();
    this.#roster.hurry();
    for (const { service } of this.#members.values()) void service.kill();
  }

  /** Ends every descendant that is left, within `budgetMs`. To be called when the services are stopped. Returns how many stay. */
  async sweep(options: { readonly budgetMs: number }): Promise<number> {
    return this.#roster.sweep(options);
  }

  /** Ends the reaping and the heartbeat: the last thing, after `sweep`. */
  end(): void {
    this.#cancelBeat?.();
    this.#reaper.stop();
  }

  /** What each service is doing, without its memory. */
  statuses(): ServiceStatus[] {
    return [...this.#members.values()].map(({ service }) => service.status);
  }

  /** The same with the memory of each tree, for which every process of the machine is looked at. */
  measuredStatuses(): ServiceStatus[] {
    const processes = listProcesses();
    return this.statuses().map((status) => ({
      ...status,
      memoryBytes: status.pid === undefined ? undefined : treeBytes(status.pid, processes),
    }));
  }

  /** The newest lines of a service, oldest first. Throws if there is none of that name. */
  logs(name: string, lines: number): ServiceLine[] {
    return this.#get("read the log of", name).lines.recent(lines);
  }

  /** Calls `follower` for each line that a child writes from now on, within the rate limit. Returns the function that ends it. */
  follow(follower: (line: ServiceLine) => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  #member(spec: ServiceSpec): Member {
    const { clock, redact } = this.#options;
    const lines = new ChildLog(spec.name, {
      clock,
      redact,
      onLine: (line) => {
        for (const follower of this.#followers) follower(line);
      },
    });
    const service: Service = new Service(spec, {
      clock,
      spawn: (launch) => this.#spawn(spec.name, launch, lines),
      clear: () => this.#roster.clear(spec.name),
      oomJustKilled: () => this.#oom.justKilled(),
      onChange: (status) => this.#changed(status),
      onExit: (exit) => this.#exited(spec.name, exit),
    });
    return { service, lines };
  }

  #spawn(name: string, launch: Launch, lines: ChildLog): Child {
    const { clock } = this.#options;
    const env = this.#roster.environment(name);
    const child = spawnChild(launch, { clock, log: lines, env });
    this.#roster.add(name, child);
    return child;
  }

  #changed(status: ServiceStatus): void {
    const { name: service, state, pid, ready, reason } = status;
    const fields = { service, state, pid, ready, reason };
    if (state === "failed") this.#options.log.error(fields, "Service stays down");
    else this.#options.log.info(fields, "Service changed");
    this.#options.onChange?.(status);
  }

  #exited(service: string, exit: Exit): void {
    const { log, onExit } = this.#options;
    const { asked, code, signal, upMs, oomKilled, lastLines } = exit;
    const fields = { service, code, signal, upMs, oomKilled };
    if (asked) log.info(fields, "Service ended");
    else log.warn({ ...fields, lastLines: lastLines.slice(-5) }, "Service ended unasked");
    // What it left behind must not hold memory and ports until the next start.
    void this.#roster.clear(service);
    onExit?.(service, exit);
  }

  #beat(): void {
    this.#oom.sample();
    this.#cancelBeat = this.#options.clock.after(HEARTBEAT_MS, () => this.#beat());
  }

  #startable(verb: string, name: string): Service {
    const { service } = this.#get(verb, name);
    if (this.#closing) throw new Error(`Cannot ${verb} "${name}": the machine is stopping`);
    return service;
  }

  #get(verb: string, name: string): Member {
    const member = this.#members.get(name);
    if (!member) throw new Error(`Cannot ${verb} "${name}": no such service`);
    return member;
  }
}
