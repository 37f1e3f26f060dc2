import { randomUUID } from "node:crypto";

import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { Dir } from "../volume/dir.ts";
import type { Child } from "./child.ts";
import { ChildrenFile, whereWeRun, type ChildrenRecord } from "./children-file.ts";
import { endProcesses } from "./end-processes.ts";
import { leftoversOf } from "./leftovers.ts";
import { listProcesses, processInfo, type ProcessInfo } from "./process-list.ts";
import { MARK, descendantsOf, marked, sessionOf, union } from "./process-tree.ts";

/** What a killed sidecar left behind gets to end in order. */
const LEFTOVER_GRACE_MS = 5_000;
/** What a dead child left behind gets: nobody works for it any more. */
const REMAINS_GRACE_MS = 2_000;
/** From SIGKILL to giving up. */
const KILL_MS = 3_000;

export interface RosterOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** Where children.json is kept; without it nothing is remembered. The caller keeps it open and closes it. */
  readonly dir?: Dir | undefined;
}

/**
 * All processes that come from us, this life's and the last one's: who they are, and how to be rid of them.
 * A mark in every child's environment names this life and the service, so that a descendant is known for one even if
 * we are killed before its number could be written down.
 */
export class Roster {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #file: ChildrenFile | undefined;
  readonly #run = randomUUID();
  readonly #children = new Map<string, ChildrenRecord["children"][number]>();
  readonly #clearing = new Map<string, Promise<void>>();
  readonly #hurry = new AbortController();
  #unwritten = false;

  constructor({ clock, log, dir }: RosterOptions) {
    this.#clock = clock;
    this.#log = log;
    this.#file = dir && new ChildrenFile(dir);
  }

  /**
   * Ends what the last life left running, and writes down this one. To be awaited before anything is started.
   * Returns how many processes it found. Throws if that sidecar is alive.
   */
  async takeOver(): Promise<number> {
    const record = this.#file?.read();
    const here = whereWeRun();
    const found = record ? leftoversOf(record, here, listProcesses()) : [];
    if (record && found.length > 0) {
      await endProcesses(() => leftoversOf(record, here, listProcesses()), {
        clock: this.#clock,
        graceMs: LEFTOVER_GRACE_MS,
        limitMs: LEFTOVER_GRACE_MS + KILL_MS,
        hurry: this.#hurry.signal,
      });
    }
    this.#write();
    return found.length;
  }

  /** The environment that every child of `service` is started with. */
  environment(service: string): Readonly<Record<string, string>> {
    return { [MARK]: `${this.#run}/${service}` };
  }

  /** Writes down a child, durably, before it returns. */
  add(service: string, child: Child): void {
    if (child.startTicks === undefined) return;
    const { pid, startTicks } = child;
    this.#children.set(service, { name: service, pid, startTicks });
    this.#write();
  }

  /** Ends what dead children of `service` left running: its session, and whatever carries its mark. */
  async clear(service: string): Promise<void> {
    const running = this.#clearing.get(service);
    if (running) return running;
    const clearing = this.#clear(service).finally(() => this.#clearing.delete(service));
    this.#clearing.set(service, clearing);
    return clearing;
  }

  /**
   * Ends every process that comes from our children, within `budgetMs`. Returns how many it could not end. Helpers of
   * the sidecar's own are in its session, where no child and nothing that comes from one can be; they are spared.
   */
  async sweep({ budgetMs }: { readonly budgetMs: number }): Promise<number> {
    const left = await endProcesses(
      () => {
        const processes = listProcesses();
        const own = processes.find(({ pid }) => pid === process.pid)?.session;
        const below = descendantsOf(process.pid, processes);
        return union(
          below.filter(({ session }) => session !== own),
          marked(processes, { run: this.#run }),
        );
      },
      {
        clock: this.#clock,
        graceMs: budgetMs / 2,
        limitMs: budgetMs,
        hurry: this.#hurry.signal,
      },
    );
    return left.length;
  }

  /** From now on nothing is given time to end. */
  hurry(): void {
    this.#hurry.abort();
  }

  async #clear(service: string): Promise<void> {
    await endProcesses(() => this.#remains(service), {
      clock: this.#clock,
      graceMs: REMAINS_GRACE_MS,
      limitMs: REMAINS_GRACE_MS + KILL_MS,
      hurry: this.#hurry.signal,
    });
  }

  #remains(service: string): ProcessInfo[] {
    const processes = listProcesses();
    const last = this.#children.get(service);
    return union(
      last ? sessionOf(last, processes) : [],
      marked(processes, { run: this.#run, service }),
    );
  }

  #write(): void {
    const startTicks = processInfo(process.pid)?.startTicks ?? 0;
    try {
      this.#file?.write({
        v: 1,
        ...whereWeRun(),
        run: this.#run,
        sidecar: { pid: process.pid, startTicks },
        children: [...this.#children.values()],
      });
      this.#unwritten = false;
    } catch (error) {
      // A full disk must not keep a child from running; the mark finds it as long as the first record was written.
      if (!this.#unwritten) this.#log.warn({ error }, "Children cannot be written down");
      this.#unwritten = true;
    }
  }
}
