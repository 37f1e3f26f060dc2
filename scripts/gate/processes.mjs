import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

const MARK = "SIDECAR_TEST_RUN";
const SETTLE_LIMIT_MS = 3_000;
const LOOK_EVERY_MS = 100;

/**
 * Everything one run starts: each program in a group of its own and marked in its environment, so
 * that what it leaves behind, also in other sessions, is found and ended. By pid, never by name.
 */
export class Processes {
  #run = randomUUID();
  #groups = new Set();

  /** Starts a program. The result's `done` resolves with its exit code, 128 when a signal ended it. */
  start(command, args, { cwd, env, stdio }) {
    const child = spawn(command, args, {
      cwd,
      env: { ...env, [MARK]: this.#run },
      stdio,
      detached: true,
    });
    if (child.pid !== undefined) this.#groups.add(child.pid);
    const done = new Promise((resolve) => {
      child.once("error", (error) => resolve({ code: 127, error }));
      child.once("close", (code) => resolve({ code: code ?? 128 }));
    });
    return { child, done };
  }

  /** Ends the groups, and gives what tidies up after them the time to do so. */
  async settle() {
    for (const pid of this.#groups) kill(-pid);
    const deadline = Date.now() + SETTLE_LIMIT_MS;
    while (this.#left().length > 0 && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }

  /** Kills all that is left; returns the names of what was. */
  end() {
    for (const pid of this.#groups) kill(-pid);
    return this.#left().map(({ pid, name }) => {
      kill(pid);
      return `${name} (pid ${pid})`;
    });
  }

  #left() {
    return leftOver(`${MARK}=${this.#run}`);
  }
}

function leftOver(mark) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(mark)) return [];
        return [{ pid: Number(pid), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() }];
      } catch {
        return []; // Gone meanwhile, or somebody else's.
      }
    });
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
