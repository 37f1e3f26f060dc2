import type { ScanResult } from "../notice/scan.ts";
import type { Reading } from "../read/reading.ts";
import { pathOf } from "./plan.ts";
import type { SkippedPath } from "./replicator-status.ts";

const REPORTED = 100;
/** More are counted no more: something is wrong at large then, and other signs say so. */
const REMEMBERED = 10_000;

/** What is on the volume and cannot or must not be backed up. */
export class SkippedPaths {
  readonly #reasons = new Map<string, string>();

  /** Takes over what was read: a path that can be read again is no longer skipped. */
  note(readings: readonly Reading[]): void {
    for (const reading of readings) {
      if (reading.kind !== "skipped") this.#reasons.delete(pathOf(reading));
      else if (this.#reasons.size < REMEMBERED) this.#reasons.set(reading.path, reading.reason);
    }
  }

  /** A path that could not be sent. It is tried again, and forgotten here once that succeeds. */
  fail(path: string): void {
    if (this.#reasons.size < REMEMBERED) this.#reasons.set(path, "failing");
  }

  report(scan: ScanResult | undefined): {
    readonly skipped: readonly SkippedPath[];
    readonly skippedCount: number;
  } {
    const all = new Map(this.#reasons);
    for (const { path } of scan?.errors ?? []) all.set(path, "unreadable");
    for (const { path, reason } of scan?.skipped ?? []) all.set(path, reason);
    const skipped = [...all].slice(0, REPORTED).map(([path, reason]) => ({ path, reason }));
    return { skipped, skippedCount: all.size };
  }
}
