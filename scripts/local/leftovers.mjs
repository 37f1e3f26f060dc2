import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/**
 * Whether children of a sidecar that was killed still run for this volume. The next sidecar ends them before it starts
 * its own, so that the ports they hold are no reason not to start.
 */
export function hasLeftovers(dataDir) {
  try {
    const record = JSON.parse(readFileSync(join(dataDir, ".sidecar/children.json"), "utf8"));
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    if (record.boot !== boot || record.namespace !== readlinkSync("/proc/self/ns/pid"))
      return false;
    return !isRunning(record.sidecar) && record.children.some(isRunning);
  } catch {
    // Nothing was written down, or not for us to read: then the ports decide.
    return false;
  }
}

function isRunning({ pid, startTicks }) {
  try {
    // The name before the fields is in parentheses and may itself hold any of them.
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] !== "Z" && Number(fields[19]) === startTicks;
  } catch {
    return false;
  }
}
