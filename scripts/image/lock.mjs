import { readFileSync, rmSync, writeFileSync } from "node:fs";

const LOOK_EVERY_MS = 500;

/** Runs `work` while no other process does so with the same lock file; waits for its turn. */
export async function withLock(path, work, { signal } = {}) {
  while (!take(path)) {
    signal?.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

function take(path) {
  try {
    writeFileSync(path, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  try {
    // Who held it was killed.
    if (!isAlive(Number(readFileSync(path, "utf8")))) rmSync(path, { force: true });
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  return false;
}
