import type { ChildrenRecord } from "./children-file.ts";
import { isRunning, type ProcessInfo } from "./process-list.ts";
import { ancestry, descendantsOf, marked, sessionOf, union } from "./process-tree.ts";

/**
 * What a killed sidecar left running, by its record: each child with its session and its descendants, and whatever
 * carries that life's mark. A process that merely has the number of an old one is never among them.
 * Throws if that sidecar still lives: two on one volume would destroy it.
 */
export function leftoversOf(
  record: ChildrenRecord,
  here: Pick<ChildrenRecord, "boot" | "namespace">,
  processes: readonly ProcessInfo[],
): ProcessInfo[] {
  if (record.boot !== here.boot || record.namespace !== here.namespace) return [];
  if (record.sidecar.pid !== process.pid && isRunning(record.sidecar)) {
    throw new Error(
      `Cannot take over the children of process ${record.sidecar.pid}: it is a sidecar that still runs`,
    );
  }
  const marks = marked(processes, { run: record.run });
  const known = record.children.flatMap((child) => {
    const self = processes.filter(
      ({ pid, startTicks, zombie }) =>
        pid === child.pid && startTicks === child.startTicks && !zombie,
    );
    // Without its leader a session is only a number, which may have been given anew since: there the mark decides alone.
    return self.length === 0 ? [] : union(self, sessionOf(child, processes));
  });
  const roots = union(known, marks);
  const ours = ancestry(process.pid, processes);
  return union(roots, ...roots.map((root) => descendantsOf(root.pid, processes))).filter(
    ({ pid }) => !ours.has(pid),
  );
}
