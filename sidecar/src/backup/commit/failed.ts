import type { Reading } from "../read/reading.ts";
import type { CommitResult } from "./committer.ts";

/**
 * Why paths of a batch are not durable as they were read, by path. A database that was busy is among them where `isAwaited`:
 * else the next scan finds it again.
 */
export function failedPaths(
  result: Pick<Extract<CommitResult, { kind: "nothing" }>, "left" | "failures">,
  readings: readonly Reading[],
  { isAwaited }: { readonly isAwaited: boolean },
): Map<string, string> {
  const failed = new Map<string, string>();
  for (const path of result.left)
    failed.set(path, `Cannot commit "${path}": it changed while it was read`);
  for (const { path, error } of result.failures)
    failed.set(path, error instanceof Error ? error.message : `Cannot send "${path}"`);
  if (!isAwaited) return failed;
  for (const reading of readings) {
    if (reading.kind === "skipped" && reading.reason === "busy_database")
      failed.set(reading.path, reading.message);
  }
  return failed;
}
