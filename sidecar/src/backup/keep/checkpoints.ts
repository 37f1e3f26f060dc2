import type { Index } from "../index.ts";
import { writeCheckpoint, type CheckpointOptions } from "./checkpoint.ts";

/** Source: backup.md, "Never lose the backup". */
const AFTER_COMMITS = 500;
const AFTER_BYTES = 64 * 1024 * 1024;
const AFTER_MS = 24 * 3_600_000;
const RETRY_MS = 5 * 60_000;
/** What a process that is killed may forget of the sizes of commits. */
const NOTED_BYTES = 4 * 1024 * 1024;
const NOTE = "bytesSinceCheckpoint";

export interface CheckpointsOptions extends CheckpointOptions {
  readonly index: CheckpointOptions["index"] &
    Pick<Index, "head" | "checkpoint" | "note" | "setNote">;
  /** Called before one is written. */
  readonly onDue?: (() => void) | undefined;
}

/** Writes the whole tree down from time to time, so that a restore reads one manifest and few commits. Never in the way of commits. */
export class Checkpoints {
  readonly #options: CheckpointsOptions;
  #running: Promise<void> | undefined;
  #notBefore = 0;
  #failed = false;
  /** Of the commits since the last checkpoint; undefined until it is asked for. */
  #bytes: number | undefined;
  #noted = 0;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  /** Told after each commit, with its size in the store and whether nothing else is waiting. Begins a checkpoint where one is due. */
  consider(
    commit: { readonly bytes: number; readonly settled: boolean },
    signal: AbortSignal,
  ): void {
    this.#count(commit.bytes);
    const { clock, onDue } = this.#options;
    if (this.#running || clock.monotonic() < this.#notBefore || !this.#due(commit.settled)) return;
    onDue?.();
    this.#running = this.#attempt(signal).finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when none is being written. */
  async ended(): Promise<void> {
    await this.#running;
  }

  #due(settled: boolean): boolean {
    const { index, clock } = this.#options;
    const head = index.head();
    const last = index.checkpoint();
    if (!head || head.position === last?.position) return false;
    if (!last && settled) return true;
    return (
      head.position - (last?.position ?? 0) >= AFTER_COMMITS ||
      (this.#bytes ?? 0) >= AFTER_BYTES ||
      (last !== undefined && clock.now() - last.time >= AFTER_MS)
    );
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const seen = this.#bytes ?? 0;
    try {
      const { position, entryCount } = await writeCheckpoint(this.#options, signal);
      this.#note((this.#bytes ?? 0) - seen);
      this.#failed = false;
      log.info({ position, entries: entryCount }, "Checkpoint written and verified");
    } catch (error) {
      this.#notBefore = clock.monotonic() + RETRY_MS;
      if (signal.aborted || this.#failed) return;
      this.#failed = true;
      log.warn({ error }, "Cannot write a checkpoint; commits go on");
    }
  }

  /** Adds to the sum, and keeps it for the next process now and then. */
  #count(bytes: number): void {
    if (this.#bytes === undefined) {
      const noted = this.#options.index.note(NOTE);
      this.#noted = this.#bytes = typeof noted === "number" ? noted : 0;
    }
    this.#bytes += bytes;
    if (this.#bytes - this.#noted >= NOTED_BYTES) this.#note(this.#bytes);
  }

  #note(bytes: number): void {
    this.#bytes = this.#noted = bytes;
    this.#options.index.setNote(NOTE, bytes);
  }
}
