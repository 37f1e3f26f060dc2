import type { Exit, Running, ServiceSpec } from "../../src/supervisor/spec.ts";
import { until } from "./until.ts";

const MAX_LINES = 200;

/** A child that was started from its spec, without the supervisor. */
export interface RunningService extends AsyncDisposable {
  readonly running: Running;
  /** Everything it has printed, at most the last 200 lines. */
  readonly lines: readonly string[];
  /** Asks the spec's admission until yes. */
  admitted(limitMs?: number): Promise<void>;
  /** Resolves with what the spec's judge would get. */
  readonly exit: Promise<Exit>;
}

/** Starts one child as its spec says, in a process group of its own; the group is killed when the scope ends. */
export async function runChild(spec: ServiceSpec): Promise<RunningService> {
  const { command, env, cwd, user } = await spec.launch(new AbortController().signal);
  const start = performance.now();
  const child = Bun.spawn([...command], {
    env: { ...env },
    cwd,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    ...(user ? { uid: user.uid, gid: user.gid } : {}),
  });
  const lines: string[] = [];
  const pumped = Promise.all([pump(child.stdout, lines), pump(child.stderr, lines)]);
  const running: Running = {
    pid: child.pid,
    signal: (name) => child.kill(name),
    exited: child.exited.then(() => undefined),
  };
  const exit = child.exited.then(async (): Promise<Exit> => {
    await Promise.race([pumped, Bun.sleep(1_000)]);
    return {
      code: child.exitCode ?? undefined,
      signal: child.signalCode === null ? undefined : String(child.signalCode),
      asked: false,
      oomKilled: false,
      upMs: performance.now() - start,
      lastLines: lines,
    };
  });
  return {
    running,
    lines,
    exit,
    async admitted(limitMs = 60_000) {
      const question = async (): Promise<boolean> => {
        if (child.exitCode !== null) throw new Error(`${spec.name} ended:\n${lines.join("\n")}`);
        const answer = spec.admission?.probe(running, AbortSignal.timeout(5_000));
        return (await answer?.catch((error: unknown) => String(error))) === undefined;
      };
      await until(question, `${spec.name} to be admitted`, limitMs);
    },
    async [Symbol.asyncDispose]() {
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // All of it has ended.
      }
      await child.exited;
    },
  };
}

async function pump(stream: ReadableStream<Uint8Array>, lines: string[]): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    lines.splice(0, Math.max(0, lines.length - MAX_LINES));
  }
  if (rest !== "") lines.push(rest);
}
