import type { Owner } from "./dir.ts";
import type { Root } from "./root.ts";
import { VolumeError } from "./volume-error.ts";

export interface MoveOptions {
  /** Owner of the folders that are made on the way to `to`. */
  readonly owner?: Owner | undefined;
  /** Called with the path of each folder made on the way. */
  readonly onCreate?: (path: string) => void;
}

/**
 * Renames what is at `from` (a link itself, not its target) to `to`, durably. Folders missing on the way to `to` are
 * made, a file there is replaced, a folder only if it is empty and a folder comes. Throws VolumeError: `missing`,
 * `not_empty`, `denied` for the machine's own folders, `bad_name` for a folder that would lie in itself.
 */
export async function moveEntry(
  root: Root,
  { from, to }: { readonly from: string; readonly to: string },
  options: MoveOptions = {},
): Promise<void> {
  using source = root.place(from);
  root.checkFixed(source.path);
  source.dir.lstat(source.name);
  if (`${tidy(to)}/`.startsWith(`${tidy(from)}/`) && tidy(to) !== tidy(from)) throw inside(from);
  using target = root.place(to, { create: options });
  root.checkFixed(target.path);
  // The kernel says the same (EINVAL) where links on the way or a swap hide it from the words.
  if (target.path.startsWith(`${source.path}/`)) throw inside(from);
  source.dir.rename(source.name, target.dir, target.name);
  await target.dir.flush();
  await source.dir.flush();
}

function tidy(path: string): string {
  return path.split("/").filter(Boolean).join("/");
}

function inside(path: string): VolumeError {
  return new VolumeError("bad_name", `Cannot move "${path}": a folder cannot lie in itself`);
}
