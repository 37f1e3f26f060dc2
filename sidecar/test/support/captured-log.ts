import { createLogger, type Logger } from "../../src/platform/log.ts";

/** A real logger whose lines are kept as objects. */
export function capturedLog(): Logger & { readonly lines: readonly Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const log = createLogger({
    level: "debug",
    write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>),
  });
  return Object.assign(log, { lines });
}
