import { readFileSync } from "node:fs";

/** Bytes of memory of the whole machine. */
export interface Memory {
  readonly totalBytes: number;
  /** What programs can still get without swapping. */
  readonly availableBytes: number;
}

/** Source: proc(5), /proc/meminfo. */
export function readMemory(): Memory {
  const text = readFileSync("/proc/meminfo", "latin1");
  return {
    totalBytes: kibibytes(text, "MemTotal"),
    availableBytes: kibibytes(text, "MemAvailable"),
  };
}

function kibibytes(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
}
