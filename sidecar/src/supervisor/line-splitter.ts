/** What a line keeps; the rest of it is counted. */
export const LINE_BYTES = 16 * 1024;
/**
 * Held beyond that, so that a secret which lies across the cut is still seen whole by the redactor. A secret is shorter.
 */
export const MARGIN_BYTES = 1024;

const HELD_BYTES = LINE_BYTES + MARGIN_BYTES;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** A line without its end, up to LINE_BYTES + MARGIN_BYTES of it; `beyondBytes` came after that and are gone. */
export interface RawLine {
  readonly text: string;
  readonly beyondBytes: number;
}

/** Cuts a stream of bytes into lines. Holds one line's kept part at most, however long the line is. */
export class LineSplitter {
  readonly #onLine: (line: RawLine) => void;
  readonly #held = new Uint8Array(HELD_BYTES);
  #length = 0;
  #cut = 0;
  // Bytes that are no UTF-8 become U+FFFD, and a mark at the start of a line is a character like others.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(onLine: (line: RawLine) => void) {
    this.#onLine = onLine;
  }

  push(chunk: Uint8Array): void {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, from);
      if (end === -1) break;
      if (this.#length === 0 && end - from <= HELD_BYTES) this.#emit(chunk.subarray(from, end), 0);
      else {
        this.#hold(chunk.subarray(from, end));
        this.#flush();
      }
      from = end + 1;
    }
    this.#hold(chunk.subarray(from));
  }

  /** The stream has ended: what came after the last newline is a line too. */
  end(): void {
    if (this.#length > 0) this.#flush();
  }

  #hold(bytes: Uint8Array): void {
    const room = HELD_BYTES - this.#length;
    const taken = bytes.length <= room ? bytes : bytes.subarray(0, room);
    this.#held.set(taken, this.#length);
    this.#length += taken.length;
    this.#cut += bytes.length - taken.length;
  }

  #flush(): void {
    const bytes = this.#held.subarray(0, this.#length);
    const cut = this.#cut;
    this.#length = 0;
    this.#cut = 0;
    this.#emit(bytes, cut);
  }

  #emit(bytes: Uint8Array, beyondBytes: number): void {
    const ended = bytes.at(-1) === RETURN && beyondBytes === 0 ? bytes.subarray(0, -1) : bytes;
    this.#onLine({ text: this.#decoder.decode(ended), beyondBytes });
  }
}

/** The line as others see it: redacted as a whole, then cut. */
export function finishLine(line: RawLine, redact: (text: string) => string): string {
  const text = redact(line.text);
  // What the redactor could not judge, because it went on, lies within the last bytes of what was held.
  const judged = line.beyondBytes === 0 ? text.length : Math.max(0, text.length - MARGIN_BYTES);
  const kept = Math.min(LINE_BYTES, judged);
  if (kept === text.length) return text;
  return `${text.slice(0, kept)}… (${text.length - kept + line.beyondBytes} more)`;
}
