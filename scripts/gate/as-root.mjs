import { spawn, spawnSync } from "node:child_process";
import { constants } from "node:os";

/**
 * Whether root can be had by sudo without a question. Tests about PID 1, other users and full
 * disks need it.
 */
export function canBecomeRoot() {
  return process.getuid?.() !== 0 && spawnSync("sudo", ["-n", "true"]).status === 0;
}

/** Runs this very command once more as root, with the same environment; resolves with its exit code. */
export function runAgainAsRoot() {
  const keep = [`PATH=${process.env.PATH}`, process.execPath, ...process.argv.slice(1)];
  const child = spawn("sudo", ["-n", "-E", "-H", "env", ...keep], { stdio: "inherit" });
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.removeAllListeners(name);
    process.on(name, () => child.kill(name));
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
}
