import type { Clock } from "../../platform/clock.ts";

/** How far a restore is. */
export interface Progress {
  readonly files: number;
  readonly filesDone: number;
  readonly bytes: number;
  readonly bytesDone: number;
  /** Seconds left; undefined while too little is done to tell. */
  readonly etaS: number | undefined;
}

/** A file costs about as much as so many bytes, which is how the time left is told for trees of many small ones. */
const FILE_COST_BYTES = 64 * 1024;
/** Told at most so often. */
const EVERY_MS = 500;
/** Earlier than this nothing can be said. */
const SETTLED_MS = 1_000;

/** For people: `1,200 of 10,000 files, 12.5 of 40.0 MiB, 31 s left`. */
export function progressLine({ files, filesDone, bytes, bytesDone, etaS }: Progress): string {
  const mib = (count: number): string => (count / 1024 / 1024).toFixed(1);
  const count = new Intl.NumberFormat("en");
  const left = etaS === undefined ? "" : `, ${count.format(etaS)} s left`;
  return `${count.format(filesDone)} of ${count.format(files)} files, ${mib(bytesDone)} of ${mib(bytes)} MiB${left}`;
}

/** Counts what is done and says how long the rest takes, at the pace so far. */
export class ProgressMeter {
  readonly #clock: Clock;
  readonly #onProgress: ((progress: Progress) => void) | undefined;
  #files = 0;
  #filesDone = 0;
  #bytes = 0;
  #bytesDone = 0;
  #startedAt = 0;
  #toldAt = -Infinity;

  constructor(clock: Clock, onProgress?: (progress: Progress) => void) {
    this.#clock = clock;
    this.#onProgress = onProgress;
  }

  get progress(): Progress {
    return {
      files: this.#files,
      filesDone: this.#filesDone,
      bytes: this.#bytes,
      bytesDone: this.#bytesDone,
      etaS: this.#etaS(),
    };
  }

  start(total: { readonly files: number; readonly bytes: number }): void {
    this.#files = total.files;
    this.#bytes = total.bytes;
    this.#filesDone = 0;
    this.#bytesDone = 0;
    this.#startedAt = this.#clock.monotonic();
    this.tell();
  }

  /** One file is dealt with. */
  add(bytes: number): void {
    this.#filesDone += 1;
    this.#bytesDone += bytes;
    if (this.#clock.monotonic() - this.#toldAt >= EVERY_MS) this.tell();
  }

  tell(): void {
    this.#toldAt = this.#clock.monotonic();
    this.#onProgress?.(this.progress);
  }

  #etaS(): number | undefined {
    const passedMs = this.#clock.monotonic() - this.#startedAt;
    const done = this.#bytesDone + this.#filesDone * FILE_COST_BYTES;
    const all = this.#bytes + this.#files * FILE_COST_BYTES;
    if (done === all) return 0;
    if (done === 0 || passedMs < SETTLED_MS) return undefined;
    return Math.ceil((passedMs * (all - done)) / done / 1000);
  }
}
