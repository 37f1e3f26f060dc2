/** How to start a child once. Read anew before every start, so that it may depend on what is on the disk by then. */
export interface Launch {
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Runs as this user and group; undefined keeps the sidecar's own. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** Linux oom_score_adj: higher is killed first. */
  readonly oomScoreAdj?: number | undefined;
}

/** How a child ended. */
export interface Exit {
  readonly code: number | undefined;
  readonly signal: string | undefined;
  /** True if we had asked it to stop. */
  readonly asked: boolean;
  /** True if the kernel killed it for want of memory. */
  readonly oomKilled: boolean;
  readonly upMs: number;
  /** Its last lines (both streams), redacted, oldest first. */
  readonly lastLines: readonly string[];
}

/** What follows an exit that nobody asked for. */
export type Verdict =
  /** Start again; the delay grows with each death in a row. */
  | { readonly kind: "backoff"; readonly reason: string }
  /** Start again after the base delay, without counting towards the growth (a restart the child wanted). */
  | { readonly kind: "restart"; readonly reason: string }
  /** Starting again cannot help: stay down and say why, with a rare retry. */
  | { readonly kind: "failed"; readonly reason: string };

/** The child as its spec sees it while it runs. */
export interface Running {
  readonly pid: number;
  /** Signals the child's process alone. A child that is gone is a success. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when the process has ended, whoever holds its pipes. */
  readonly exited: Promise<void>;
}

/** A question asked again and again. Resolves to undefined for yes, to a short reason for no; a throw is a no. */
export type Probe = (running: Running, signal: AbortSignal) => Promise<string | undefined>;

/** Everything the supervisor knows of a child. Nothing in supervisor/ knows what the child is. */
export interface ServiceSpec {
  readonly name: string;
  /** Prepares one start. A throw counts as a death whose reason is the error's message. */
  launch(signal: AbortSignal): Promise<Launch>;
  /** Asked every 250 ms from the start on; the service is ready after the first yes. Without it: ready once started. */
  readonly admission?: { readonly probe: Probe; readonly timeoutMs: number };
  /** Asked once admitted. `misses` noes in a row restart the child. */
  readonly liveness?: {
    readonly probe: Probe;
    readonly everyMs: number;
    readonly timeoutMs: number;
    readonly misses: number;
    /** No restart for this reason sooner than this after admission. */
    readonly graceMs?: number;
  };
  /**
   * Asks the child to end; the supervisor waits for the exit and kills the whole group at the deadline.
   * Default: SIGTERM to the group, then SIGCONT. `budgetMs` is what is left until the kill.
   */
  stop?(
    running: Running,
    options: { readonly budgetMs: number; readonly signal: AbortSignal },
  ): Promise<void>;
  /** Budget of a stop that names none: a restart, or an end for want of admission or life. 30 s without it. */
  readonly stopBudgetMs?: number;
  /** Judges an exit that was not asked for. Default: `backoff`. */
  judge?(exit: Exit): Verdict | Promise<Verdict>;
}

export type ServiceState =
  | "initial"
  | "starting"
  | "running"
  | "stopping"
  | "killing"
  | "stopped"
  | "backoff"
  | "failed";

/** One row of the report's `services`. */
export interface ServiceStatus {
  readonly name: string;
  readonly state: ServiceState;
  readonly pid: number | undefined;
  /** Wall time in milliseconds since when it is in this state. */
  readonly since: number;
  /** Starts after the first one. */
  readonly restarts: number;
  readonly lastExit:
    | {
        readonly code?: number;
        readonly signal?: string;
        readonly at: number;
        readonly reason: string;
      }
    | undefined;
  /** Admitted and alive. */
  readonly ready: boolean;
  /** Why it is not ready, in plain words. */
  readonly reason: string | undefined;
  /** Resident bytes of the child's process tree. */
  readonly memoryBytes: number | undefined;
}
