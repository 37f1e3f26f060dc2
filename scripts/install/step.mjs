import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const SHOWN_LINES = 10;
const TICK_MS = 10_000;
const OFFLINE =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch/;

/** A failure that the person at the terminal can mend: what was found, and what to do about it. */
export class InstallError extends Error {
  constructor(message, { advice, cause } = {}) {
    super(message, { cause });
    this.name = "InstallError";
    this.advice = advice;
  }
}

/** Prints why a command could not do its work and returns its exit code; throws what is a fault of our own. */
export function explain(error) {
  if (error.name === "AbortError") return 130;
  if (!(error instanceof InstallError)) throw error;
  console.error(error.message);
  if (error.advice) console.error(error.advice);
  return 1;
}

export function say(text) {
  console.log(`» ${text}`);
}

/**
 * Runs a command quietly and resolves with its output; says every 10 s that it is still at it.
 * Throws InstallError with the end of the output when it fails or cannot be started, and ends it
 * when the signal aborts.
 */
export async function run(command, args, { what, cwd, env = process.env, advice, signal } = {}) {
  signal?.throwIfAborted();
  const startedAt = Date.now();
  const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  const chunks = [];
  child.stdout.on("data", (chunk) => chunks.push(chunk));
  child.stderr.on("data", (chunk) => chunks.push(chunk));
  const end = () => child.kill("SIGTERM");
  signal?.addEventListener("abort", end, { once: true });
  const ticker = setInterval(
    () => say(`  still at it: ${what} (${Math.round((Date.now() - startedAt) / 1000)} s)`),
    TICK_MS,
  );
  try {
    const code = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (status, name) => resolve(status ?? name));
    });
    signal?.throwIfAborted();
    const output = Buffer.concat(chunks).toString("utf8");
    if (code !== 0) throw failed({ what, code, output, advice });
    return output;
  } catch (cause) {
    if (cause instanceof InstallError || signal?.aborted) throw cause;
    throw new InstallError(`Cannot run "${command}": ${cause.message}`, { advice, cause });
  } finally {
    clearInterval(ticker);
    signal?.removeEventListener("abort", end);
  }
}

/** The first executable file of that name on the PATH, or undefined. */
export function findProgram(name, path = process.env.PATH ?? "") {
  return path
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function failed({ what, code, output, advice }) {
  return new InstallError(`Cannot ${what}: it ended with ${code}\n${ends(output)}`, {
    advice: OFFLINE.test(output)
      ? "The network cannot be reached. It is needed the first time only: connect, then run this again; what is already installed is kept."
      : advice,
  });
}

/** The first and the last lines: some programs say first what is wrong, others last. */
function ends(output) {
  const lines = output.trimEnd().split("\n");
  if (lines.length <= 2 * SHOWN_LINES) return lines.join("\n");
  return [...lines.slice(0, SHOWN_LINES), "…", ...lines.slice(-SHOWN_LINES)].join("\n");
}
