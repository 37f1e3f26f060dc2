import { Attempt, type AttemptOptions, type Outcome } from "./attempt.ts";
import { NO_DEATHS, RETRY_MS, TRIAL, afterDeath, type Deaths } from "./backoff.ts";
import type { Exit, ServiceSpec, ServiceStatus, Verdict } from "./spec.ts";
import { Standing } from "./standing.ts";
import { describeExit, judgeExit } from "./verdict.ts";

/** For a stop that names no budget, where the spec names none either. */
const STOP_MS = 30_000;
/** After SIGKILL: what has not ended by then sits in the kernel, and nobody waits for it any longer. */
const GIVE_UP_MS = 5_000;

export interface ServiceOptions extends AttemptOptions {
  /** True if the kernel has just killed for want of memory. */
  readonly oomJustKilled?: () => boolean;
  /** After each change of state or readiness. */
  readonly onChange?: (status: ServiceStatus) => void;
  /** After each end of a process, before what follows from it. */
  readonly onExit?: (exit: Exit) => void;
  /** In [0, 1). */
  readonly random?: () => number;
}

/** What follows when the child that is being stopped has ended. */
type Then =
  | { readonly kind: "stop" }
  | { readonly kind: "start" }
  /** It was not healthy: as if it had died by itself. */
  | { readonly kind: "death"; readonly reason: string };

/**
 * One service and the life of its children. The state says everything; each event is a method that switches on it, and
 * is ignored in a state where it has no meaning. A state has one timer at most, which ends with the state.
 *
 *     initial ─start─> starting ─1 s─> running          starting, running ─stop─> stopping ─deadline─> killing
 *                         │               │             stopping, killing ─exit─> stopped, starting or backoff
 *                         └──────exit─────┴──> backoff ─delay─> starting
 *                                                 └─5 deaths─> failed ─5 min─> starting
 */
export class Service {
  readonly name: string;
  readonly #spec: ServiceSpec;
  readonly #options: ServiceOptions;
  readonly #at: Standing;
  /** Of the stop under way, in monotonic milliseconds. */
  #deadline = 0;
  #attempt: Attempt | undefined;
  /** Resolves when the start that is awaited has come to something; undefined when nobody awaits one. */
  #settled: PromiseWithResolvers<void> | undefined;
  /** Resolves when the stop under way is over. */
  #gone = Promise.withResolvers<void>();
  #then: Then = { kind: "stop" };
  #deaths: Deaths = NO_DEATHS;
  #starts = 0;
  #lastExit: ServiceStatus["lastExit"];

  constructor(spec: ServiceSpec, options: ServiceOptions) {
    this.name = spec.name;
    this.#spec = spec;
    this.#options = options;
    this.#at = new Standing(options.clock, () => this.#changed());
  }

  /** Memory is not its business: see the supervisor. */
  get status(): ServiceStatus {
    return {
      name: this.name,
      state: this.#at.state,
      pid: this.#attempt?.pid,
      since: this.#at.since,
      restarts: Math.max(0, this.#starts - 1),
      lastExit: this.#lastExit,
      ready: this.#at.ready,
      reason: this.#at.ready ? undefined : this.#at.reason,
      memoryBytes: undefined,
    };
  }

  /** Starts it unless it runs; after a stop that is under way. Resolves once it is up or has died: the status tells. */
  async start(): Promise<void> {
    switch (this.#at.state) {
      case "initial":
      case "stopped":
      case "backoff":
      case "failed":
        this.#deaths = NO_DEATHS;
        this.#settled ??= Promise.withResolvers();
        this.#begin();
        break;
      case "stopping":
      case "killing":
        this.#deaths = NO_DEATHS;
        this.#then = { kind: "start" };
        this.#settled ??= Promise.withResolvers();
        break;
      case "starting":
        this.#settled ??= Promise.withResolvers();
        break;
      case "running":
        break;
    }
    await this.#settled?.promise;
  }

  /** Asks it to end and kills its group after `budgetMs`. Works in any state; resolves when it has ended. */
  async stop(options: { readonly budgetMs?: number } = {}): Promise<void> {
    this.#stop({ kind: "stop" }, options.budgetMs ?? this.#stopMs);
    if (this.#at.state !== "stopped") await this.#gone.promise;
  }

  /** Stops it where it runs, and starts it. Resolves as `start` does. */
  async restart(options: { readonly budgetMs?: number } = {}): Promise<void> {
    switch (this.#at.state) {
      case "starting":
      case "running":
        this.#stop({ kind: "start" }, options.budgetMs ?? this.#stopMs);
        break;
      default:
        break;
    }
    await this.start();
  }

  /** Kills its group now and leaves it stopped. Resolves when it has ended. */
  async kill(): Promise<void> {
    await this.stop({ budgetMs: 0 });
  }

  #stop(then: Then, budgetMs: number): void {
    switch (this.#at.state) {
      case "initial":
      case "stopped":
      case "backoff":
      case "failed":
        this.#at.enter("stopped", "asked to stop");
        break;
      case "starting":
      case "running":
        this.#then = then;
        this.#gone = Promise.withResolvers();
        this.#at.enter("stopping", then.kind === "death" ? then.reason : "asked to stop");
        if (budgetMs > 0) this.#attempt?.ask(budgetMs);
        this.#armStop(budgetMs);
        break;
      case "stopping":
        this.#then = then;
        if (this.#now + budgetMs < this.#deadline) this.#armStop(budgetMs);
        break;
      case "killing":
        this.#then = then;
        break;
    }
    if (then.kind !== "start") this.#settle();
  }

  #begin(): void {
    const attempt: Attempt = new Attempt(this.#spec, {
      ...this.#options,
      events: {
        spawned: () => this.#changed(),
        started: () => this.#started(),
        ready: () => this.#setReady(true, undefined),
        unready: (reason) => this.#setReady(false, reason),
        unhealthy: (reason) => this.#unhealthy(reason),
        over: (outcome) => this.#over(outcome),
      },
    });
    this.#attempt = attempt;
    this.#starts += 1;
    this.#at.enter("starting", "it is starting");
    attempt.begin();
  }

  #started(): void {
    if (this.#at.state !== "starting") return;
    this.#at.enter("running", this.#at.reason);
    this.#settle();
  }

  #setReady(ready: boolean, reason: string | undefined): void {
    switch (this.#at.state) {
      case "starting":
      case "running":
        this.#at.setReady(ready, reason);
        break;
      default:
        break;
    }
  }

  #unhealthy(reason: string): void {
    switch (this.#at.state) {
      case "starting":
      case "running":
        this.#stop({ kind: "death", reason }, this.#stopMs);
        break;
      default:
        break;
    }
  }

  #stopTimeUp(): void {
    if (this.#at.state !== "stopping") return;
    this.#at.enter("killing", this.#at.reason);
    this.#at.arm(GIVE_UP_MS, () => this.#killTimeUp());
    this.#attempt?.kill();
  }

  #killTimeUp(): void {
    if (this.#at.state !== "killing") return;
    this.#at.explain("still there after SIGKILL");
    // Nobody waits any longer; but nothing is started before it is gone.
    this.#gone.resolve();
  }

  #over(outcome: Outcome): void {
    this.#attempt = undefined;
    switch (outcome.kind) {
      case "unstarted":
        this.#ended(undefined, outcome.reason);
        break;
      case "ended": {
        const exit = this.#exitOf(outcome);
        this.#options.onExit?.(exit);
        this.#ended(exit, describeExit(exit));
        break;
      }
    }
  }

  /** There is no process any more, and no start under way. */
  #ended(exit: Exit | undefined, reason: string): void {
    const { code, signal, upMs = 0 } = exit ?? {};
    this.#lastExit = {
      ...(code === undefined ? {} : { code }),
      ...(signal === undefined ? {} : { signal }),
      at: this.#options.clock.now(),
      reason,
    };
    switch (this.#at.state) {
      case "starting":
      case "running":
        this.#at.enter("backoff", reason);
        this.#settle();
        if (exit) void this.#judge(exit);
        else this.#died(reason, { upMs, grows: true });
        break;
      case "stopping":
      case "killing":
        this.#goOn(upMs);
        this.#gone.resolve();
        break;
      default:
        break;
    }
  }

  #goOn(upMs: number): void {
    const then = this.#then;
    switch (then.kind) {
      case "stop":
        this.#at.enter("stopped", "asked to stop");
        break;
      case "start":
        this.#begin();
        break;
      case "death":
        this.#at.enter("backoff", then.reason);
        this.#died(then.reason, { upMs, grows: true });
        break;
    }
  }

  async #judge(exit: Exit): Promise<void> {
    const visit = this.#at.visit;
    const verdict = await judgeExit(this.#spec, exit, this.#options.clock);
    if (visit === this.#at.visit) this.#judged(exit, verdict);
  }

  #judged(exit: Exit, verdict: Verdict): void {
    const { reason } = verdict;
    if (this.#lastExit) this.#lastExit = { ...this.#lastExit, reason };
    switch (verdict.kind) {
      case "failed":
        this.#fail(reason);
        break;
      case "restart":
      case "backoff":
        this.#died(reason, { upMs: exit.upMs, grows: verdict.kind === "backoff" });
        break;
    }
  }

  /** Decides in `backoff` when to start again. */
  #died(reason: string, death: { readonly upMs: number; readonly grows: boolean }): void {
    const { random = Math.random } = this.#options;
    const { deaths, sequel } = afterDeath(this.#deaths, {
      ...death,
      at: this.#now,
      random: random(),
    });
    this.#deaths = deaths;
    switch (sequel.kind) {
      case "again":
        this.#at.explain(reason);
        this.#at.arm(sequel.delayMs, () => this.#delayOver());
        break;
      case "loop":
        this.#fail(`${reason} (${sequel.words})`);
        break;
    }
  }

  #delayOver(): void {
    if (this.#at.state !== "backoff") return;
    this.#begin();
  }

  #fail(reason: string): void {
    this.#at.enter("failed", reason);
    this.#at.arm(RETRY_MS, () => this.#retryTimeUp());
  }

  #retryTimeUp(): void {
    if (this.#at.state !== "failed") return;
    this.#deaths = TRIAL;
    this.#begin();
  }

  #exitOf({ ended, upMs }: Extract<Outcome, { kind: "ended" }>): Exit {
    const asked = this.#at.state === "stopping" || this.#at.state === "killing";
    const killed = ended.signal === "SIGKILL" || ended.code === 128 + 9;
    const oomKilled = !asked && killed && this.#options.oomJustKilled?.() === true;
    return { ...ended, asked, oomKilled, upMs };
  }

  #armStop(budgetMs: number): void {
    this.#deadline = this.#now + budgetMs;
    if (budgetMs <= 0) this.#stopTimeUp();
    else this.#at.arm(budgetMs, () => this.#stopTimeUp());
  }

  #settle(): void {
    this.#settled?.resolve();
    this.#settled = undefined;
  }

  #changed(): void {
    this.#options.onChange?.(this.status);
  }

  get #stopMs(): number {
    return this.#spec.stopBudgetMs ?? STOP_MS;
  }

  get #now(): number {
    return this.#options.clock.monotonic();
  }
}
