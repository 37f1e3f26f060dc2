import type { Clock } from "../platform/clock.ts";
import { isStoreError, type StoreError } from "../store/store.ts";
import { withinTime } from "./within-time.ts";

/** How the store answers at the moment. */
export type Reach = "ok" | "unreachable" | "denied";

/** The first wait; each further one may be twice as long, up to the second number. Source: backup.md, "Commit". */
const BASE_MS = 500;
const LONGEST_MS = 30_000;
/** Credentials do not come back by asking often; new ones may be put in place at any time. */
const DENIED_MS = 60_000;
/** One failure is weather. */
const FAILURES_TO_TELL = 3;
/** Once there is little time left: what a connection that hangs may cost, and what its bytes need at 1 MB a second. */
const HURRIED_MS = 5_000;
const HURRIED_BYTES_PER_MS = 1_000;
const HURRIED_PAUSE_MS = 1_000;
const PUT_MS = 60_000;
const PUT_BYTES_PER_MS = 100;

export interface PatienceOptions {
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
  /** A signal that aborts when something is there that a store may answer to, such as new credentials: nothing is waited for then. */
  readonly renewed?: (() => AbortSignal | undefined) | undefined;
  /** Called when `reach` changes: once at the start of an outage, once at its end. */
  readonly onChange?: (reach: Reach, error: StoreError | undefined) => void;
}

export interface InsistOptions {
  readonly signal: AbortSignal;
  /** After so long one try counts as failed. */
  readonly timeoutMs: number;
  /** True where `missing` can only mean the bucket or folder itself: waited out like refused credentials. */
  readonly missingIsTrouble?: boolean;
}

/** Asks a store again until it answers, whoever asks: what is known of an outage is shared. Waits have full jitter. */
export class Patience {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #onChange: (reach: Reach, error: StoreError | undefined) => void;
  readonly #renewed: () => AbortSignal | undefined;
  readonly #hurry = new AbortController();
  #reach: Reach = "ok";
  #failures = 0;

  constructor(options: PatienceOptions) {
    this.#clock = options.clock;
    this.#random = options.random ?? Math.random;
    this.#renewed = options.renewed ?? (() => undefined);
    this.#onChange = options.onChange ?? (() => undefined);
  }

  get reach(): Reach {
    return this.#reach;
  }

  /** The answer of `work`, asked for ever. Throws what another try cannot change, and the signal's reason. */
  async insist<T>(work: (signal: AbortSignal) => Promise<T>, options: InsistOptions): Promise<T> {
    for (let failures = 0; ; failures += 1) {
      options.signal.throwIfAborted();
      const renewed = this.#renewed();
      try {
        const { signal, timeoutMs } = options;
        const hurry = { signal: this.#hurry.signal, limitMs: hurriedMs(timeoutMs) };
        const limits = { clock: this.#clock, signal, limitMs: timeoutMs, hurry };
        const answer = await withinTime(work, limits);
        this.#answered();
        return answer;
      } catch (error) {
        options.signal.throwIfAborted();
        const denied =
          isStoreError(error, "denied") ||
          (options.missingIsTrouble === true && isStoreError(error, "missing"));
        if (!denied && !isStoreError(error, "unavailable", "throttled")) {
          // Any clear word of the store is an answer too.
          if (isStoreError(error)) this.#answered();
          throw error;
        }
        this.#failed(denied ? "denied" : "unreachable", error);
        await this.#rest(denied ? Infinity : failures, { signal: options.signal, renewed });
      }
    }
  }

  /**
   * From here on there is little time: a try that hangs is given up soon, also one under way, and pauses are short. What is
   * waiting for a store that has come back meanwhile gets through.
   */
  hurry(): void {
    this.#hurry.abort(new Error("There is little time left"));
  }

  /** Waits as after `failures` failures in a row. */
  async pause(failures: number, signal: AbortSignal): Promise<void> {
    await this.#rest(failures, { signal, renewed: this.#renewed() });
  }

  /** `renewed` is of before the last try: what came during it counts. */
  async #rest(
    failures: number,
    {
      signal,
      renewed,
    }: { readonly signal: AbortSignal; readonly renewed: AbortSignal | undefined },
  ): Promise<void> {
    const hurry = this.#hurry.signal;
    if (!hurry.aborted) {
      const ends = renewed ? [signal, hurry, renewed] : [signal, hurry];
      try {
        await this.#clock.sleep(this.#pauseMs(failures), AbortSignal.any(ends));
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (renewed?.aborted) return;
        if (!hurry.aborted) throw error;
      }
    }
    await this.#clock.sleep(HURRIED_PAUSE_MS * this.#random(), signal);
  }

  #pauseMs(failures: number): number {
    if (failures === Infinity) return DENIED_MS * (0.5 + this.#random() / 2);
    return Math.min(LONGEST_MS, BASE_MS * 2 ** Math.min(failures, 16)) * this.#random();
  }

  #failed(reach: "unreachable" | "denied", error: StoreError): void {
    this.#failures += 1;
    if (reach === "unreachable" && this.#failures < FAILURES_TO_TELL) return;
    this.#become(reach, error);
  }

  #answered(): void {
    this.#failures = 0;
    this.#become("ok", undefined);
  }

  #become(reach: Reach, error: StoreError | undefined): void {
    if (this.#reach === reach) return;
    this.#reach = reach;
    this.#onChange(reach, error);
  }
}

/** How long one put may take: a minute, and what its bytes need at 100 KB a second. */
export function putTimeoutMs(sizeBytes: number): number {
  return PUT_MS + Math.ceil(sizeBytes / PUT_BYTES_PER_MS);
}

/** The same in a hurry. */
function hurriedMs(timeoutMs: number): number {
  const sizeBytes = Math.max(0, timeoutMs - PUT_MS) * PUT_BYTES_PER_MS;
  return HURRIED_MS + sizeBytes / HURRIED_BYTES_PER_MS;
}
