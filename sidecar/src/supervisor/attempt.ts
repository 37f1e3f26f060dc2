import type { Clock } from "../platform/clock.ts";
import type { Child, Ended } from "./child.ts";
import { checkHealth } from "./health-checks.ts";
import type { Launch, ServiceSpec } from "./spec.ts";

/** Up this long it counts as started; readiness is another matter. */
const STARTED_MS = 1_000;
/** What the preparation of a start gets. */
const PREPARE_MS = 300_000;

/** What came of a start. */
export type Outcome =
  /** There never was a process. */
  | { readonly kind: "unstarted"; readonly reason: string }
  | { readonly kind: "ended"; readonly ended: Ended; readonly upMs: number };

export interface AttemptEvents {
  /** There is a process. */
  spawned(): void;
  /** It has been up for a second. */
  started(): void;
  ready(): void;
  unready(reason: string): void;
  /** It is up but must be restarted. */
  unhealthy(reason: string): void;
  /** Once, and nothing after it. */
  over(outcome: Outcome): void;
}

export interface AttemptOptions {
  readonly clock: Clock;
  /** Starts the child; a throw is why it could not. */
  readonly spawn: (launch: Launch) => Child;
  /** Ends what earlier children of this service left behind. Awaited before each start. */
  readonly clear: () => Promise<void>;
}

/** One start of a service, from its preparation to the end of the process. Reports what happens, decides nothing. */
export class Attempt {
  readonly #spec: ServiceSpec;
  readonly #options: AttemptOptions;
  readonly #events: AttemptEvents;
  /** Ends the preparation and the health checks. */
  readonly #abort = new AbortController();
  /** Ends the spec's own stop. */
  readonly #asking = new AbortController();
  readonly #done = Promise.withResolvers<void>();
  #over = false;
  #child: Child | undefined;

  constructor(spec: ServiceSpec, options: AttemptOptions & { readonly events: AttemptEvents }) {
    this.#spec = spec;
    this.#options = options;
    this.#events = options.events;
  }

  get pid(): number | undefined {
    return this.#over ? undefined : this.#child?.pid;
  }

  /** Resolves when it is over. */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  begin(): void {
    void this.#run();
  }

  /** Asks the child to end, by the spec's own way where it has one. Without a child it ends the preparation. */
  ask(budgetMs: number): void {
    this.#abort.abort(new Error("asked to stop"));
    const child = this.#child;
    if (!child) return;
    void this.#ask(child, budgetMs);
  }

  /** Kills the group. Without a child it is over at once, whatever the preparation still does. */
  kill(): void {
    const reason = new Error("killed");
    this.#abort.abort(reason);
    this.#asking.abort(reason);
    if (this.#child) this.#child.signalGroup("SIGKILL");
    else this.#end({ kind: "unstarted", reason: "stopped before it had started" });
  }

  async #run(): Promise<void> {
    const { clock, clear, spawn } = this.#options;
    const cancel = clock.after(PREPARE_MS, () => this.#prepareTimeUp());
    try {
      await clear();
      this.#abort.signal.throwIfAborted();
      const launch = await this.#spec.launch(this.#abort.signal);
      this.#abort.signal.throwIfAborted();
      if (this.#over) return;
      this.#child = spawn(launch);
    } catch (error) {
      this.#end({ kind: "unstarted", reason: messageOf(error) });
      return;
    } finally {
      cancel();
    }
    await this.#live(this.#child);
  }

  async #live(child: Child): Promise<void> {
    const { clock } = this.#options;
    const begun = clock.monotonic();
    const cancel = clock.after(STARTED_MS, () => {
      this.#events.started();
      if (!this.#spec.admission) void this.#check(child);
    });
    this.#events.spawned();
    if (this.#spec.admission) void this.#check(child);
    await child.exited;
    cancel();
    const upMs = Math.round(clock.monotonic() - begun);
    this.#abort.abort(new Error("the process has ended"));
    this.#asking.abort(new Error("the process has ended"));
    this.#end({ kind: "ended", ended: await child.ended, upMs });
  }

  async #check(child: Child): Promise<void> {
    await checkHealth(this.#spec, child, {
      clock: this.#options.clock,
      signal: this.#abort.signal,
      events: {
        ready: () => this.#events.ready(),
        unready: (reason) => this.#events.unready(reason),
        failed: (reason) => this.#events.unhealthy(reason),
      },
    });
  }

  async #ask(child: Child, budgetMs: number): Promise<void> {
    try {
      if (this.#spec.stop) {
        await this.#spec.stop(child, { budgetMs, signal: this.#asking.signal });
        return;
      }
    } catch {
      // Its own way did not work: everybody's way follows. Where it was ended by us, the child is gone or killed.
    }
    child.signalGroup("SIGTERM");
    // A child that was stopped cannot act on it before.
    child.signalGroup("SIGCONT");
  }

  #prepareTimeUp(): void {
    const reason = `not prepared within ${PREPARE_MS / 1_000} s`;
    this.#abort.abort(new Error(reason));
    this.#end({ kind: "unstarted", reason });
  }

  #end(outcome: Outcome): void {
    if (this.#over) return;
    this.#over = true;
    this.#events.over(outcome);
    this.#done.resolve();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
