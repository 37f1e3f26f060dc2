import { statSync, writeFileSync } from "node:fs";

import type { Clock } from "../platform/clock.ts";
import type { ChildLog } from "./child-log.ts";
import type { LineSplitter } from "./line-splitter.ts";
import { processInfo, send } from "./process-list.ts";
import type { Launch, Running } from "./spec.ts";

/** An orphan may hold a pipe for ever: what has not arrived this long after the exit is not waited for. */
const AFTER_EXIT_MS = 200;
/** A child that says more than this is held up: it must not cost the machine its other work. 4 MiB/s, in small turns. */
const TURN_BYTES = 64 * 1024;
const TURN_MS = 16;

/** How a process ended, as the system tells it. Both undefined if the system could not say. */
export interface Ended {
  readonly code: number | undefined;
  readonly signal: string | undefined;
  readonly lastLines: readonly string[];
}

/** A process of ours, leading a session and a group of its own. */
export interface Child extends Running {
  /** With `pid`, names the process for as long as the machine is up. Undefined if it was gone before we could look. */
  readonly startTicks: number | undefined;
  /** Signals the whole group. Gone is a success. */
  signalGroup(name: NodeJS.Signals): void;
  /** Resolves after `exited`, once its last lines are in. Never rejects. */
  readonly ended: Promise<Ended>;
}

export interface SpawnOptions {
  readonly clock: Clock;
  readonly log: ChildLog;
  /** Variables of ours, on top of the launch's. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a child. Throws `Cannot start "<command>": …` if the system refuses. */
export function spawnChild(launch: Launch, options: SpawnOptions): Child {
  const { log, env } = options;
  const before = log.count;
  const subprocess = spawn(launch, env);
  const { pid } = subprocess;
  const startTicks = processInfo(pid)?.startTicks;
  if (launch.oomScoreAdj !== undefined) adjustOomScore(pid, launch.oomScoreAdj);
  let alive = true;
  const gone = waitFor(subprocess).finally(() => {
    alive = false;
  });
  const pumped = Promise.all([
    pump(subprocess.stdout, log.open("stdout"), { ...options, gone }),
    pump(subprocess.stderr, log.open("stderr"), { ...options, gone }),
  ]);
  return {
    pid,
    startTicks,
    exited: gone,
    // After the exit the number may soon be another's.
    signal: (name) => (alive ? send(pid, name) : undefined),
    signalGroup: (name) => (alive ? send(-pid, name) : undefined),
    ended: pumped.then(() => ({
      code: subprocess.exitCode ?? undefined,
      signal: subprocess.signalCode === null ? undefined : String(subprocess.signalCode),
      lastLines: log.lastSince(before),
    })),
  };
}

/** Resolves when the process has ended, also where somebody else took its exit code. */
async function waitFor(subprocess: Bun.Subprocess): Promise<void> {
  await subprocess.exited.catch(() => undefined);
}

function spawn(launch: Launch, env: SpawnOptions["env"]): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  const [program] = launch.command;
  // The system reports a missing folder as if the command were missing.
  if (!statSync(launch.cwd, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Error(`Cannot start "${program}": no folder "${launch.cwd}"`);
  }
  try {
    return Bun.spawn([...launch.command], {
      cwd: launch.cwd,
      env: { ...launch.env, ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
      // Read on demand: otherwise all that the child says is held in memory until somebody asks.
      lazy: true,
      ...launch.user,
    });
  } catch (error) {
    throw new Error(`Cannot start "${program}": ${refusal(error)}`, { cause: error });
  }
}

function refusal(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOENT":
      return "no such command";
    case "EACCES":
      return "it may not be executed";
    default:
      return error instanceof Error ? error.message : String(error);
  }
}

function adjustOomScore(pid: number, score: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(score));
  } catch {
    // Gone already, or not ours to change: a hint to the kernel, nothing depends on it.
  }
}

/** Resolves after the exit, when the stream has ended or shortly later. Never stops reading before, or the child would hang. */
async function pump(
  stream: ReadableStream<Uint8Array>,
  lines: LineSplitter,
  options: { readonly clock: Clock; readonly gone: Promise<void> },
): Promise<void> {
  const { clock, gone } = options;
  const reader = stream.getReader();
  const pace = new Pace(options);
  const end = readAll(() => reader.read(), lines, pace);
  await gone;
  await Promise.race([end, clock.sleep(AFTER_EXIT_MS)]);
  // Ends the reading, where an orphan holds the other side.
  await reader.cancel().catch(() => undefined);
  await end;
  lines.end();
}

/** Never rejects: a pipe that breaks has ended, and how the process ended is told by its exit. */
async function readAll(
  read: () => Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>,
  lines: LineSplitter,
  pace: Pace,
): Promise<void> {
  for (;;) {
    const { done, value } = await read().catch(() => ({ done: true, value: undefined }));
    if (done || !value) return;
    for (let from = 0; from < value.length; from += TURN_BYTES) {
      const turn = value.subarray(from, from + TURN_BYTES);
      lines.push(turn);
      await pace.spend(turn.length);
    }
  }
}

/** Holds a reader to TURN_BYTES in each turn, while the child lives. What a dead one left is little, and is read at once. */
class Pace {
  readonly #clock: Clock;
  #gone = false;
  #turnEnd = 0;
  #bytes = 0;

  constructor({ clock, gone }: { readonly clock: Clock; readonly gone: Promise<void> }) {
    this.#clock = clock;
    void gone.then(() => (this.#gone = true));
  }

  async spend(bytes: number): Promise<void> {
    const now = this.#clock.monotonic();
    if (now >= this.#turnEnd) {
      this.#turnEnd = now + TURN_MS;
      this.#bytes = 0;
    }
    this.#bytes += bytes;
    if (this.#gone || this.#bytes < TURN_BYTES) return;
    await this.#clock.sleep(this.#turnEnd - now);
  }
}
