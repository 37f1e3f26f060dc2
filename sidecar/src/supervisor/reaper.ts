import { readFileSync } from "node:fs";

import type { Clock } from "../platform/clock.ts";
import { libc } from "./libc.ts";
import { listProcesses, processInfo, type ProcessInfo } from "./process-list.ts";

/** Between two sightings of a zombie. The runtime takes its own children in between; what is left is an orphan. */
const GRACE_MS = 200;
/** A look without a signal: some sandboxes deliver none. */
const HEARTBEAT_MS = 1_000;

/**
 * Takes the orphans that become our children, as PID 1 or as subreaper, and leaves the runtime its own: waiting for any
 * child would steal their exit codes, so a zombie is taken by number, and only if it is one on two sightings.
 */
export class Reaper {
  readonly #clock: Clock;
  #seen: ReadonlyMap<number, number> = new Map();
  #cancelLook: (() => void) | undefined;
  #cancelBeat: (() => void) | undefined;
  #reaped = 0;
  readonly #onSignal = (): void => this.#lookSoon();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Orphans taken since the start. */
  get reaped(): number {
    return this.#reaped;
  }

  /** Throws if the C library cannot be called: then orphans stay. */
  start(): void {
    if (this.#cancelBeat) return;
    const system = libc();
    if (process.pid !== 1) system.becomeSubreaper();
    process.on("SIGCHLD", this.#onSignal);
    this.#beat();
  }

  stop(): void {
    process.off("SIGCHLD", this.#onSignal);
    this.#cancelLook?.();
    this.#cancelBeat?.();
    this.#cancelLook = undefined;
    this.#cancelBeat = undefined;
  }

  #beat(): void {
    this.#lookSoon();
    this.#cancelBeat = this.#clock.after(HEARTBEAT_MS, () => this.#beat());
  }

  #lookSoon(): void {
    this.#cancelLook ??= this.#clock.after(GRACE_MS, () => this.#look());
  }

  #look(): void {
    this.#cancelLook = undefined;
    const next = new Map<number, number>();
    if (libc().anyZombie()) {
      for (const { pid, startTicks } of zombies()) {
        if (this.#seen.get(pid) !== startTicks) next.set(pid, startTicks);
        else if (libc().reap(pid)) this.#reaped += 1;
      }
    }
    this.#seen = next;
    if (next.size > 0) this.#lookSoon();
  }
}

/** Our zombies. Those of the main thread alone where the kernel tells: a worker's children are waited for by the worker. */
function zombies(): ProcessInfo[] {
  return candidates().filter((info) => info.zombie && info.parent === process.pid);
}

function candidates(): ProcessInfo[] {
  let list: string;
  try {
    list = readFileSync(`/proc/self/task/${process.pid}/children`, "latin1");
  } catch {
    // A kernel built without this file.
    return listProcesses();
  }
  return list
    .split(" ")
    .filter((pid) => pid !== "")
    .map((pid) => processInfo(Number(pid)))
    .filter((info) => info !== undefined);
}
