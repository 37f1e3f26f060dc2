import { Worker } from "node:worker_threads";

import type { Clock } from "../platform/clock.ts";

/** As after a SIGKILL: what a parent sees where the process had to end itself. */
export const EXIT_CODE = 128 + 9;

export interface WatchdogData {
  /** Four bytes, a counter that the main thread moves. */
  readonly beats: SharedArrayBuffer;
  readonly tickMs: number;
  readonly limitMs: number;
}

export interface WatchdogOptions {
  readonly clock: Clock;
  /** Without a beat of the main loop for this long, the process ends. */
  readonly limitMs?: number;
  /** How often the main loop beats and the worker looks. */
  readonly tickMs?: number;
}

/** Ends the process by SIGKILL when its main loop hangs: the platform never restarts a machine that merely hangs. */
export class Watchdog {
  readonly #clock: Clock;
  readonly #data: WatchdogData;
  readonly #beats: Int32Array;
  #worker: Worker | undefined;
  #cancelBeat: (() => void) | undefined;

  constructor({ clock, limitMs = 60_000, tickMs = 1_000 }: WatchdogOptions) {
    this.#clock = clock;
    this.#data = { beats: new SharedArrayBuffer(4), tickMs, limitMs };
    this.#beats = new Int32Array(this.#data.beats);
  }

  start(): void {
    if (this.#worker) return;
    this.#worker = new Worker(new URL("watchdog-worker.ts", import.meta.url), {
      workerData: this.#data,
    });
    this.#worker.unref();
    this.#beat();
  }

  stop(): void {
    this.#cancelBeat?.();
    void this.#worker?.terminate();
    this.#worker = undefined;
  }

  #beat(): void {
    Atomics.add(this.#beats, 0, 1);
    this.#cancelBeat = this.#clock.after(this.#data.tickMs, () => this.#beat());
  }
}

/**
 * How many ticks of stalling `elapsedMs` between two looks is evidence for: two at most. While the machine is suspended
 * or starved, the watcher stands still as the watched does, and a long gap says nothing about the main loop.
 */
export function stalledTicks(elapsedMs: number, tickMs: number): number {
  return Math.min(2, elapsedMs / tickMs);
}
