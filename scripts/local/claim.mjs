import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

import { UsageError } from "./options.mjs";

/** What a holder runs; a pid that means something else by now holds nothing. */
const HOLDER = /(?:^|\/)(?:scripts\/start\.mjs|sidecar\/src\/main\.ts)$/;

/**
 * Takes the machine's folder for this process, by a file with its pid: two machines on one volume would undo each
 * other's work. Returns { pass, release }: the claim goes on to the process that `pass` names, until `release`.
 * Throws UsageError while somebody else has it.
 */
export function claim(pidFile) {
  mkdirSync(dirname(pidFile), { recursive: true, mode: 0o700 });
  if (!write(pidFile)) {
    const pid = holderOf(pidFile);
    if (pid === undefined) rmSync(pidFile, { force: true });
    if (pid !== undefined || !write(pidFile)) {
      const who = pid === undefined ? "" : ` (pid ${pid}). Stop it first: kill ${pid}`;
      throw new UsageError(`This machine is already running${who}`);
    }
  }
  return {
    pass: (pid) => writeFileSync(pidFile, String(pid)),
    release: () => rmSync(pidFile, { force: true }),
  };
}

function write(pidFile) {
  try {
    writeFileSync(pidFile, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

function holderOf(pidFile) {
  try {
    const pid = Number(readFileSync(pidFile, "utf8"));
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return pid !== process.pid && command.some((word) => HOLDER.test(word)) ? pid : undefined;
  } catch {
    return undefined;
  }
}
