import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";

import { systemClock } from "../platform/clock.ts";
import { libc } from "./libc.ts";
import { EXIT_CODE, stalledTicks, type WatchdogData } from "./watchdog.ts";

await watch(workerData as WatchdogData);

/** Ends the process once the main thread has not moved its counter for the whole limit. */
async function watch(data: WatchdogData): Promise<void> {
  const { beats, tickMs, limitMs } = data;
  const beat = new Int32Array(beats);
  let seen = Atomics.load(beat, 0);
  let stalled = 0;
  for (let last = systemClock.monotonic(); ;) {
    await systemClock.sleep(tickMs);
    const now = systemClock.monotonic();
    const latest = Atomics.load(beat, 0);
    stalled = latest === seen ? stalled + stalledTicks(now - last, tickMs) : 0;
    seen = latest;
    last = now;
    if (stalled * tickMs >= limitMs) endProcess(limitMs);
  }
}

function endProcess(limitMs: number): void {
  try {
    writeSync(1, `${JSON.stringify(lastWords(limitMs))}\n`);
  } catch {
    // Nobody reads any more: ending matters, saying so does not.
  }
  if (process.pid !== 1) process.kill(process.pid, "SIGKILL");
  // PID 1 cannot be killed from inside; this ends all of its threads.
  libc().exitNow(EXIT_CODE);
}

function lastWords(limitMs: number): object {
  return {
    level: "error",
    time: new Date(systemClock.now()).toISOString(),
    part: "watchdog",
    limitMs,
    message: "The main loop has stopped turning, ending the process",
  };
}
