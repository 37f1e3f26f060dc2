import type { Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import { isDamagedIndex } from "../index-schema.ts";
import type { ScanResult } from "../notice/scan.ts";
import type { ScanRequest } from "../notice/scanner.ts";
import { Bell } from "./bell.ts";

/** The pause between two scans: at least so long, and so many times what the last one took. */
interface Pause {
  readonly atLeastMs: number;
  readonly timesItsDuration: number;
}

/** Source: backup.md, "Notice". */
const WATCHED: Pause = { atLeastMs: 30_000, timesItsDuration: 100 };
/** A scan of 100,000 entries takes about a second: this is a twentieth of a core. */
const UNWATCHED: Pause = { atLeastMs: 5_000, timesItsDuration: 20 };

export interface ScansOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** See Scanner.scan. */
  readonly scan: (request: ScanRequest) => Promise<ScanResult>;
  readonly onFound: (paths: readonly string[]) => void;
  /** A further reason why the tree cannot be the one to back up, such as a marker that is gone. */
  readonly refuse?: (() => Halt | undefined) | undefined;
  readonly isWatching?: (() => boolean) | undefined;
  /** Told after each scan: why the tree is not whole, undefined where it is. */
  readonly onOutcome: (halt: Halt | undefined) => void;
}

/** Why nothing may be committed from this tree. */
export interface Halt {
  readonly kind: string;
  readonly message: string;
}

type HaltReason = "emptied" | "unreadable" | "failing" | "scan_failed" | "damaged_index";

const MESSAGES: Readonly<Record<HaltReason, string>> = {
  emptied:
    "Cannot back up the volume: everything on it is gone; restore it, or accept the empty tree",
  unreadable: "Cannot back up the volume: its root cannot be listed",
  failing:
    "Cannot back up the volume: the disk reports errors; attach a volume restored from the backup",
  scan_failed: "Cannot back up the volume: it cannot be compared with the index",
  damaged_index: "Cannot back up the volume: the index is damaged, and is rebuilt",
};

/** Decides when the volume is compared with the index: at first, when asked, and from time to time whatever the watcher says. */
export class Scans {
  readonly #options: ScansOptions;
  readonly #bell: Bell;
  #begun = 0;
  #done = 0;
  #wanted = 1;
  #waiting: { readonly from: number; readonly resolve: () => void }[] = [];
  #last: ScanResult | undefined;
  #failing = false;

  constructor(options: ScansOptions) {
    this.#options = options;
    this.#bell = new Bell(options.clock);
  }

  /** What the last scan that ended by itself found. */
  get last(): ScanResult | undefined {
    return this.#last;
  }

  /** Scans soon. */
  request(): void {
    this.#wanted = this.#begun + 1;
    this.#bell.ring();
  }

  /** Resolves when the first scan has ended. Rejects with the signal's reason. */
  async first(signal: AbortSignal): Promise<void> {
    await this.#waitFor(1, signal);
  }

  /** Resolves when a scan that began after this call has ended. Rejects with the signal's reason. */
  async fresh(signal: AbortSignal): Promise<void> {
    const from = this.#begun + 1;
    this.request();
    await this.#waitFor(from, signal);
  }

  /** Scans until the signal aborts; rejects with its reason. */
  async run(signal: AbortSignal): Promise<never> {
    const { clock } = this.#options;
    for (;;) {
      signal.throwIfAborted();
      this.#begun += 1;
      const durationMs = await this.#once(signal);
      this.#done = this.#begun;
      for (const { from, resolve } of this.#waiting) if (from <= this.#done) resolve();
      const { atLeastMs, timesItsDuration } =
        this.#options.isWatching?.() === false ? UNWATCHED : WATCHED;
      const next = clock.monotonic() + Math.max(atLeastMs, timesItsDuration * durationMs);
      while (this.#wanted <= this.#begun) {
        const left = next - clock.monotonic();
        if (left <= 0) break;
        await this.#bell.wait(left, signal);
      }
    }
  }

  async #waitFor(scan: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#done >= scan) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { from: scan, resolve };
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(waiter);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
    }
  }

  async #once(signal: AbortSignal): Promise<number> {
    const { clock, log, scan, onFound } = this.#options;
    const start = clock.monotonic();
    try {
      const result = await scan({
        signal,
        onBatch: ({ changed, gone }) => onFound([...gone, ...changed]),
      });
      signal.throwIfAborted();
      this.#last = result;
      this.#failing = false;
      const { outcome } = result;
      this.#judge(outcome === "complete" || outcome === "cancelled" ? undefined : outcome);
      return result.durationMs;
    } catch (error) {
      signal.throwIfAborted();
      if (!this.#failing) log.error({ error }, "Cannot scan the volume");
      this.#failing = true;
      this.#judge(isDamagedIndex(error) ? "damaged_index" : "scan_failed");
      return clock.monotonic() - start;
    }
  }

  #judge(reason: HaltReason | undefined): void {
    const halt = reason && { kind: reason, message: MESSAGES[reason] };
    this.#options.onOutcome(halt ?? this.#options.refuse?.());
  }
}
