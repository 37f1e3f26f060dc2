import type { Clock } from "../platform/clock.ts";
import type { Exit, ServiceSpec, Verdict } from "./spec.ts";

/** What a spec's judge gets, with the cures it may try. */
const JUDGE_MS = 120_000;

/** What follows from an exit: what the spec says, or a backoff where it says nothing, fails or takes too long. Never rejects. */
export async function judgeExit(spec: ServiceSpec, exit: Exit, clock: Clock): Promise<Verdict> {
  const reason = describeExit(exit);
  if (!spec.judge) return { kind: "backoff", reason };
  const late = Promise.withResolvers<Verdict>();
  const cancel = clock.after(JUDGE_MS, () =>
    late.resolve({ kind: "backoff", reason: `${reason}; no verdict within ${JUDGE_MS / 1_000} s` }),
  );
  try {
    return await Promise.race([spec.judge(exit), late.promise]);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { kind: "backoff", reason: `${reason}; ${problem}` };
  } finally {
    cancel();
  }
}

/** How it ended, in plain words. */
export function describeExit(exit: Exit): string {
  if (exit.oomKilled) return "killed by the kernel for want of memory";
  if (exit.signal !== undefined) return `killed by ${exit.signal}`;
  return exit.code === undefined ? "ended, with no exit code" : `ended with code ${exit.code}`;
}
