import type { Clock } from "../platform/clock.ts";
import { LineSplitter, finishLine, type RawLine } from "./line-splitter.ts";

/** What passes on to the log, per child. What it says beyond that is kept here, and counted there. */
const LINES_A_SECOND = 200;
const KEPT_LINES = 1_000;
const KEPT_CHARACTERS = 1024 * 1024;
/** What an exit is judged by. */
const LAST_LINES = 50;

export type StreamName = "stdout" | "stderr";

/** One line of a child, redacted and cut. */
export interface ServiceLine {
  readonly service: string;
  readonly stream: StreamName;
  readonly line: string;
  /** Wall time in milliseconds. */
  readonly at: number;
  /** Set on a line of our own: how many of the child's lines were left out before it. */
  readonly dropped?: number;
}

export interface ChildLogOptions {
  readonly clock: Clock;
  readonly redact?: ((line: string) => string) | undefined;
  readonly onLine?: ((line: ServiceLine) => void) | undefined;
}

interface Kept extends RawLine {
  readonly stream: StreamName;
  readonly at: number;
}

/** The lines of one service, over all its starts: the newest are kept, a limited rate is passed on. */
export class ChildLog {
  readonly #service: string;
  readonly #options: ChildLogOptions;
  /** Raw: most are never looked at, so redaction waits until one is. */
  #kept: Kept[] = [];
  #characters = 0;
  #count = 0;
  #windowEnd = 0;
  #passed = 0;
  #dropped = 0;
  #cancelReport: (() => void) | undefined;

  constructor(service: string, options: ChildLogOptions) {
    this.#service = service;
    this.#options = options;
  }

  /** Lines so far: a start's own lines are those after what this was then. */
  get count(): number {
    return this.#count;
  }

  /** Takes one stream of one start. Call `end` when it has ended. */
  open(stream: StreamName): LineSplitter {
    return new LineSplitter((line) => this.#add(stream, line));
  }

  /** The newest lines, oldest first, at most `limit`. */
  recent(limit: number): ServiceLine[] {
    return limit <= 0 ? [] : this.#kept.slice(-limit).map((kept) => this.#finish(kept));
  }

  /** The last lines after the first `count` ones. */
  lastSince(count: number): string[] {
    return this.recent(Math.min(LAST_LINES, this.#count - count)).map(({ line }) => line);
  }

  #add(stream: StreamName, line: RawLine): void {
    const kept = { ...line, stream, at: this.#options.clock.now() };
    this.#count += 1;
    this.#keep(kept);
    const { onLine } = this.#options;
    if (!onLine) return;
    const now = this.#options.clock.monotonic();
    if (now >= this.#windowEnd) this.#openWindow(now);
    if (this.#passed >= LINES_A_SECOND) {
      this.#dropped += 1;
      this.#cancelReport ??= this.#options.clock.after(this.#windowEnd - now, () => this.#report());
      return;
    }
    this.#passed += 1;
    onLine(this.#finish(kept));
  }

  #keep(line: Kept): void {
    this.#kept.push(line);
    this.#characters += line.text.length;
    // In batches: taking from the front one by one would move the whole list for each line.
    if (this.#kept.length <= 2 * KEPT_LINES && this.#characters <= 2 * KEPT_CHARACTERS) return;
    let from = Math.max(0, this.#kept.length - KEPT_LINES);
    let characters = 0;
    for (const { text } of this.#kept.slice(from)) characters += text.length;
    while (characters > KEPT_CHARACTERS) {
      characters -= this.#kept[from]?.text.length ?? characters;
      from += 1;
    }
    this.#kept = this.#kept.slice(from);
    this.#characters = characters;
  }

  #openWindow(now: number): void {
    this.#report();
    this.#windowEnd = now + 1_000;
    this.#passed = 0;
  }

  /** Says how much was left out, if anything was. */
  #report(): void {
    this.#cancelReport?.();
    this.#cancelReport = undefined;
    const dropped = this.#dropped;
    if (dropped === 0) return;
    this.#dropped = 0;
    this.#options.onLine?.({
      service: this.#service,
      stream: "stderr",
      line: `${dropped} lines left out: more than ${LINES_A_SECOND} a second`,
      at: this.#options.clock.now(),
      dropped,
    });
  }

  #finish(kept: Kept): ServiceLine {
    const { redact = (line) => line } = this.#options;
    return {
      service: this.#service,
      stream: kept.stream,
      line: finishLine(kept, redact),
      at: kept.at,
    };
  }
}
