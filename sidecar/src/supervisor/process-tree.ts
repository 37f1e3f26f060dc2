import { environmentOf, residentBytes, type ProcessInfo } from "./process-list.ts";

/**
 * The variable by which every process that came from a child is known, whatever session it moved to and whoever
 * inherited it. Its value is `<run>/<service>`, where the run is one life of the sidecar.
 */
export const MARK = "SIDECAR_RUN";

/** The running descendants of `pid`, nearest first, without itself. Zombies have none and are left out. */
export function descendantsOf(pid: number, processes: readonly ProcessInfo[]): ProcessInfo[] {
  const children = new Map<number, ProcessInfo[]>();
  for (const info of processes) {
    if (info.zombie) continue;
    const siblings = children.get(info.parent);
    if (siblings) siblings.push(info);
    else children.set(info.parent, [info]);
  }
  const found: ProcessInfo[] = [];
  const queue = [pid];
  // The list was not read in one moment: a number given anew meanwhile may close a circle.
  const seen = new Set(queue);
  for (let parent = queue.shift(); parent !== undefined; parent = queue.shift()) {
    for (const child of children.get(parent) ?? []) {
      if (seen.has(child.pid)) continue;
      seen.add(child.pid);
      found.push(child);
      queue.push(child.pid);
    }
  }
  return found;
}

/** The running processes whose mark is `run` (those of one service where it is named). Never us, nor whoever started us. */
export function marked(
  processes: readonly ProcessInfo[],
  mark: { readonly run: string; readonly service?: string },
): ProcessInfo[] {
  const exact = mark.service === undefined ? undefined : `${mark.run}/${mark.service}`;
  const ours = ancestry(process.pid, processes);
  return processes.filter((info) => {
    if (info.zombie || ours.has(info.pid)) return false;
    const value = environmentOf(info.pid, MARK);
    return exact === undefined ? value?.startsWith(`${mark.run}/`) === true : value === exact;
  });
}

/** The running members of the session that the child `leader` led or leads. Empty if its number names another process by now. */
export function sessionOf(
  leader: { readonly pid: number; readonly startTicks: number },
  processes: readonly ProcessInfo[],
): ProcessInfo[] {
  const holder = processes.find((info) => info.pid === leader.pid);
  // While a session has members, its number is given to no new process.
  if (holder && holder.startTicks !== leader.startTicks) return [];
  return processes.filter((info) => info.session === leader.pid && !info.zombie);
}

/** Resident bytes of `pid` and its descendants. Pages they share count once for each. */
export function treeBytes(pid: number, processes: readonly ProcessInfo[]): number {
  const below = descendantsOf(pid, processes).map((info) => residentBytes(info.pid));
  return below.reduce((sum, bytes) => sum + bytes, residentBytes(pid));
}

/** `pid` and its parents, up to the first. */
export function ancestry(pid: number, processes: readonly ProcessInfo[]): ReadonlySet<number> {
  const parents = new Map(processes.map((info) => [info.pid, info.parent]));
  const found = new Set<number>();
  for (let at: number | undefined = pid; at !== undefined && !found.has(at); at = parents.get(at)) {
    found.add(at);
  }
  return found;
}

/** Several finds as one list, each process once. */
export function union(...lists: readonly (readonly ProcessInfo[])[]): ProcessInfo[] {
  return [...new Map(lists.flat().map((info) => [info.pid, info])).values()];
}
