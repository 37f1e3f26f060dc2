import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { constants } from "node:os";

const MAX_LOG_BYTES = 20_000_000;
const FOLLOW_EVERY_MS = 250;
const CHUNK_BYTES = 65_536;

/**
 * Starts the sidecar as a session of its own, its log in a file, so that a Ctrl-C reaches it once,
 * from us. `exited` resolves with the exit code; 128 + n when it died of signal n.
 */
export function startSidecar({ bun, main, env, log }) {
  if (existsSync(log) && statSync(log).size > MAX_LOG_BYTES) renameSync(log, `${log}.1`);
  const file = openSync(log, "a", 0o600);
  const logStart = statSync(log).size;
  const child = spawn(bun, [main], {
    cwd: "/",
    env,
    detached: true,
    stdio: ["ignore", file, file],
  });
  closeSync(file);
  const exited = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
  return { pid: child.pid, exited, logStart, signal: (name) => child.kill(name) };
}

/** Copies what is added to the log from `position` on to stdout; the returned function ends it. */
export function followLog(log, position) {
  const file = openSync(log, "r");
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let at = position;
  const copy = () => {
    for (let read = readSync(file, buffer, 0, CHUNK_BYTES, at); read > 0;) {
      process.stdout.write(buffer.subarray(0, read).toString("utf8"));
      at += read;
      read = readSync(file, buffer, 0, CHUNK_BYTES, at);
    }
  };
  const timer = setInterval(copy, FOLLOW_EVERY_MS);
  return () => {
    clearInterval(timer);
    copy();
    closeSync(file);
  };
}

/** The last lines of what this run wrote to the log, for a start that failed. */
export function lastLines(log, { from, count }) {
  const size = statSync(log).size;
  const start = Math.max(from, size - CHUNK_BYTES);
  const buffer = Buffer.alloc(Math.max(0, size - start));
  const file = openSync(log, "r");
  readSync(file, buffer, 0, buffer.length, start);
  closeSync(file);
  return buffer.toString("utf8").trimEnd().split("\n").slice(-count);
}
