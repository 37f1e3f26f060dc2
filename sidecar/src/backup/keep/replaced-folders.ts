import { OWN_FOLDER, readMarker } from "../../volume/marker.ts";
import { removeTree } from "../../volume/remove-tree.ts";
import type { Root } from "../../volume/root.ts";

const KEPT_MS = 7 * 86_400_000;

/**
 * Removes what restores have moved out of the way a week ago and longer; their folders say when that was. Resolves with
 * their names. A folder that a restore still works with stays.
 */
export async function removeReplaced(
  root: Root,
  { nowMs, signal }: { readonly nowMs: number; readonly signal: AbortSignal },
): Promise<string[]> {
  const reading = readMarker(root);
  // Whose folder that is, and what is needed of it, is not known.
  if (reading.kind !== "ok" || reading.marker.state !== "ready") return [];
  const removed: string[] = [];
  using dir = root.dir(OWN_FOLDER, { links: "refuse" });
  for (const name of dir.names()) {
    const movedMs = Number(/^replaced-(\d{1,16})$/.exec(name)?.[1] ?? NaN);
    if (!(nowMs - movedMs > KEPT_MS)) continue;
    await removeTree({ dir, name }, { signal });
    removed.push(name);
  }
  return removed;
}
