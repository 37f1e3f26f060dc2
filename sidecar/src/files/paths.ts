import { checkName } from "../volume/dir.ts";
import type { Root } from "../volume/root.ts";
import { VolumeError } from "../volume/volume-error.ts";

/** A path as the client spelled it, and where that is below the root. */
export interface RequestPath {
  readonly spelled: string;
  readonly path: string;
}

/**
 * Where `spelled` is: absolute through the root's aliases, or relative to the folder `workspace`. Words only, nothing is
 * looked up. Throws `bad_name` (NUL, `.`, `..`, over 255 bytes, not Unicode) and `outside_root`.
 */
export function resolvePath(
  root: Root,
  { spelled, workspace }: { readonly spelled: string; readonly workspace: string },
): RequestPath {
  if (!spelled.isWellFormed()) {
    throw new VolumeError("bad_name", `Cannot use "${spelled.toWellFormed()}": not valid Unicode`);
  }
  const tidy = spelled.replace(/\/{2,}/g, "/");
  for (const part of tidy.split("/")) if (part !== "") checkName(part);
  if (!tidy.startsWith("/")) return { spelled, path: `${workspace}/${tidy}` };
  const path = root.relative(tidy);
  if (path === undefined) {
    throw new VolumeError("outside_root", `Cannot use "${spelled}": it is not on the volume`);
  }
  return { spelled, path };
}

/** The path of `name` in the folder that the client spelled so, for sending back as it is. */
export function spellChild(spelled: string, name: string): string {
  const folder = spelled.replace(/\/+$/, "");
  return folder === "" ? name : `${folder}/${name}`;
}
