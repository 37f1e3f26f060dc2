import { readdirSync, readFileSync } from "node:fs";

/** One process as /proc shows it. `pid` and `startTicks` together name a process for as long as the machine is up. */
export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  /** Ended, but not yet waited for by its parent. */
  readonly zombie: boolean;
  /** When it started, in clock ticks since boot (field 22 of /proc/PID/stat). */
  readonly startTicks: number;
}

/** Every process in our namespace, zombies included. */
export function listProcesses(): ProcessInfo[] {
  const found: ProcessInfo[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    const info = Number.isInteger(pid) ? processInfo(pid) : undefined;
    if (info) found.push(info);
  }
  return found;
}

/** The process `pid`, undefined if there is none. Asking the kernel by signal 0 would take a zombie for alive. */
export function processInfo(pid: number): ProcessInfo | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name, in brackets, may itself hold brackets and spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const number = (index: number): number => Number(fields[index]);
  return {
    pid,
    zombie: fields[0] === "Z" || fields[0] === "X",
    parent: number(1),
    group: number(2),
    session: number(3),
    startTicks: number(19),
  };
}

/** True if the very process that `info` describes still runs (not as a zombie, and not another with its number). */
export function isRunning(info: { readonly pid: number; readonly startTicks: number }): boolean {
  const now = processInfo(info.pid);
  return now !== undefined && !now.zombie && now.startTicks === info.startTicks;
}

/** Signals that very process. One that is gone is a success; one we may not signal stays. */
export function signalProcess(info: ProcessInfo, signal: NodeJS.Signals): void {
  if (isRunning(info)) send(info.pid, signal);
}

/** Signals process `pid`, or group `-pid`. Nobody there is a success, and so is what we may not signal: others see it stay. */
export function send(pid: number, signal: NodeJS.Signals): void {
  // 0, -1 and init's own group are never meant: they would reach far beyond a child.
  if (Math.abs(pid) <= 1 || !Number.isInteger(pid)) return;
  try {
    process.kill(pid, signal);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}

/** The value of `name` in the environment that process `pid` was started with; undefined also where we may not look. */
export function environmentOf(pid: number, name: string): string | undefined {
  const entry = readProc(`/proc/${pid}/environ`)
    ?.split("\0")
    .find((line) => line.startsWith(`${name}=`));
  return entry?.slice(name.length + 1);
}

/** Resident bytes of one process, 0 if it is gone. */
export function residentBytes(pid: number): number {
  const kilobytes = readProc(`/proc/${pid}/status`)?.match(/^VmRSS:\s+(\d+) kB$/m)?.[1];
  return kilobytes === undefined ? 0 : Number(kilobytes) * 1024;
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // Gone between two looks, or not ours to see: both mean that there is nothing to know.
    return undefined;
  }
}
