/**
 * What the supervisor asks of a child, as far as the children here answer it. The supervisor has the full contract;
 * the rooms meet in machine.ts alone, so the two match by their structure.
 */
export interface ChildService {
  readonly name: string;
  launch(signal: AbortSignal): Promise<ChildLaunch>;
  readonly admission: { readonly probe: ChildProbe; readonly timeoutMs: number };
  readonly liveness: {
    readonly probe: ChildProbe;
    readonly everyMs: number;
    readonly timeoutMs: number;
    readonly misses: number;
    readonly graceMs: number;
  };
  stop?(
    running: RunningChild,
    options: { readonly budgetMs: number; readonly signal: AbortSignal },
  ): Promise<void>;
  judge?(exit: ChildExit): Promise<ChildVerdict>;
}

interface ChildLaunch {
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly user?: ChildUser | undefined;
  readonly oomScoreAdj?: number;
}

export interface ChildUser {
  readonly uid: number;
  readonly gid: number;
}

export interface RunningChild {
  readonly pid: number;
  signal(name: NodeJS.Signals): void;
  readonly exited: Promise<void>;
}

/** Resolves to undefined for yes, to a short reason for no. */
export type ChildProbe = (
  running: RunningChild,
  signal: AbortSignal,
) => Promise<string | undefined>;

export interface ChildExit {
  readonly code: number | undefined;
  readonly signal: string | undefined;
  readonly oomKilled: boolean;
  readonly lastLines: readonly string[];
}

export interface ChildVerdict {
  readonly kind: "backoff" | "restart" | "failed";
  readonly reason: string;
}
