import { writeSync } from "node:fs";

import { pino } from "pino";

/** A constant sentence and its fields. `child` binds fields (`{ part: "backup" }`) to every line. */
export interface Logger {
  debug(fields: object, sentence: string): void;
  info(fields: object, sentence: string): void;
  warn(fields: object, sentence: string): void;
  error(fields: object, sentence: string): void;
  child(fields: object): Logger;
}

export interface LogOptions {
  readonly level?: "debug" | "info" | "warn" | "error";
  /** Replaces what must never leave the process; runs over the finished line. */
  readonly redact?: (line: string) => string;
  /** Where a finished line (with its newline) goes; standard output by default. */
  readonly write?: (line: string) => void;
}

/** Every line is one JSON object, written before the call returns: a buffered line is lost when the machine is cut off. */
export function createLogger(options: LogOptions = {}): Logger {
  const { level = "info", redact = (line) => line, write = writeToStdout } = options;
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: "message",
      errorKey: "error",
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: serializeError },
    },
    { write: (line: string) => write(redact(line)) },
  );
}

/** Writes all of `line` to standard output, waiting out a full pipe for a moment; a reader that is gone is not our problem. */
function writeToStdout(line: string): void {
  const bytes = Buffer.from(line);
  let offset = 0;
  // A full pipe answers EAGAIN when the other side made it non-blocking; the bound keeps a stuck reader from stopping us.
  for (let tries = 0; offset < bytes.length && tries < 100;) {
    try {
      offset += writeSync(1, bytes, offset);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
      tries += 1;
      Bun.sleepSync(1);
    }
  }
}

/** Message and causes, without the stack: operators read sentences, and a stack names paths of the build. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  return {
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
  };
}
