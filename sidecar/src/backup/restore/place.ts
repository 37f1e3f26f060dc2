import type { Dir } from "../../volume/dir.ts";
import { OWN_FOLDER, isOurs } from "../../volume/marker.ts";
import { removeTree } from "../../volume/remove-tree.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";

/** Where a tree is staged, below our folder. */
export const STAGING_NAME = "restore";
export const STAGING_FOLDER = `${OWN_FOLDER}/${STAGING_NAME}`;
export const STAGED_TREE = `${STAGING_FOLDER}/tree`;

export interface PlaceOptions {
  /** All names at the top of the staged tree, as they were before the first of them was placed. */
  readonly names: readonly string[];
  /** The folder below ours that takes what is in the way. */
  readonly replaced: string;
  /** Called after each step, with what is durable by then. */
  readonly onStep?: ((step: string) => void) | undefined;
}

/**
 * Moves the staged tree to the top of the volume, name by name, and what was there out of the way. Cut off at any point
 * and called again, it goes on: what is staged still has to be placed, what is not was placed before.
 */
export function placeTree(root: Root, { names, replaced, onStep }: PlaceOptions): void {
  using top = root.dir("", { links: "refuse" });
  using staged = root.dir(STAGED_TREE, { links: "refuse", create: { mode: 0o700 } });
  const waiting = new Set(staged.names());
  const placed = new Set(names.filter((name) => !waiting.has(name)));
  const inTheWay = top.names().filter((name) => !isOurs(name) && !placed.has(name));
  if (inTheWay.length > 0) {
    using aside = root.dir(`${OWN_FOLDER}/${replaced}`, {
      links: "refuse",
      create: { mode: 0o700 },
    });
    for (const name of inTheWay) {
      top.rename(name, aside, freeName(aside, name));
      onStep?.(`aside ${name}`);
    }
    aside.sync();
  }
  for (const name of waiting) {
    staged.rename(name, top, name);
    onStep?.(`placed ${name}`);
  }
  staged.sync();
  top.sync();
}

/** True if there is a folder or file of this name in our folder. */
export function holdsOwn(root: Root, name: string): boolean {
  using dir = root.dir(OWN_FOLDER, { links: "refuse" });
  return dir.has(name);
}

/** Removes a folder of ours with all that is in it, if it is there. */
export async function removeOwn(root: Root, name: string, signal?: AbortSignal): Promise<void> {
  try {
    using dir = root.dir(OWN_FOLDER, { links: "refuse" });
    await removeTree({ dir, name }, { signal });
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
}

/** A name that nothing in `dir` has: something may have been put aside under the same one before. */
function freeName(dir: Dir, name: string): string {
  let free = name;
  for (let n = 2; dir.has(free); n += 1) free = `${name.slice(0, 40)}-${n}`;
  return free;
}
