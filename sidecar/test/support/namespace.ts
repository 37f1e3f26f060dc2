import { readFileSync } from "node:fs";

import { listProcesses } from "../../src/supervisor/process-list.ts";
import { descendantsOf } from "../../src/supervisor/process-tree.ts";
import { until } from "./until.ts";

/** How a fixture's main program sits in its PID namespace. */
export type Seat = "PID 1" | "subreaper";

export const SEATS: readonly Seat[] = ["PID 1", "subreaper"];

/** A program in a PID namespace of its own: whatever it leaves behind ends with it. */
export interface Isolated extends AsyncDisposable {
  /** Of the n-th fixture program, in our namespace; waits until it is there. */
  pid(): Promise<number>;
  /** What it has printed so far, each line parsed as JSON where it is JSON. */
  readonly events: readonly Record<string, unknown>[];
  /** Everything it printed and said, for messages. */
  output(): string;
  /** Resolves with the exit code. */
  readonly exited: Promise<number>;
}

const NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"];

/**
 * Runs a fixture as PID 1, or as a subreaper below a shell that is PID 1. `times` runs it again after its end.
 * Throws where namespaces are not permitted: these tests must run as root.
 */
export function isolate(
  fixture: string,
  options: { readonly seat: Seat; readonly args?: readonly string[]; readonly times?: number },
): Isolated {
  checkPermitted();
  const { seat, args = [], times = 1 } = options;
  const program = [process.execPath, new URL(`../fixtures/${fixture}`, import.meta.url).pathname];
  const below = ["sh", "-c", `${'"$@"; '.repeat(times)} exit $?`, "sh"];
  const command = [...NAMESPACE, ...(seat === "subreaper" ? below : []), ...program, ...args];
  const outer = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const events: Record<string, unknown>[] = [];
  const said: string[] = [];
  const reading = [
    eachLine(outer.stdout, (line) => {
      said.push(line);
      if (line.startsWith("{")) events.push(JSON.parse(line) as Record<string, unknown>);
    }),
    eachLine(outer.stderr, (line) => said.push(line)),
  ];
  const output = (): string => said.slice(-40).join("\n");
  return {
    pid: () => until(() => programBelow(outer.pid), `the fixture in ${output()}`, 10_000),
    events,
    output,
    exited: outer.exited.then(async (code) => {
      await Promise.all(reading);
      return code;
    }),
    async [Symbol.asyncDispose]() {
      outer.kill("SIGKILL");
      await outer.exited;
    },
  };
}

let permitted = false;

function checkPermitted(): void {
  if (permitted) return;
  const probe = Bun.spawnSync([...NAMESPACE, "true"]);
  if (probe.exitCode !== 0) {
    throw new Error(
      `Cannot make a PID namespace, these tests must run as root: ${probe.stderr.toString().trim()}`,
    );
  }
  permitted = true;
}

/** The nearest descendant that runs our runtime. */
function programBelow(pid: number): number | undefined {
  return descendantsOf(pid, listProcesses()).find((info) => {
    try {
      return readFileSync(`/proc/${info.pid}/cmdline`, "utf8").startsWith(`${process.execPath}\0`);
    } catch {
      return false;
    }
  })?.pid;
}

async function eachLine(
  stream: ReadableStream<Uint8Array>,
  take: (line: string) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) take(line);
  }
  if (rest !== "") take(rest);
}
