import { whyNotReady } from "../volume/marker.ts";
import type { Root } from "../volume/root.ts";
import { isReadOnly } from "../volume/space.ts";
import { isVolumeError } from "../volume/volume-error.ts";
import type { Halt } from "./commit/scans.ts";

const REFUSAL = "Cannot back up the volume";
const READ_ONLY =
  "it has become read-only, as the kernel makes a disk that fails; restart the machine, and attach a volume restored from the backup if it stays so";

/**
 * Why nothing may be committed from this volume as `user`: a volume that was swapped under us, or fails, is never committed
 * as if that were the user's wish. Throws what says nothing about the volume, such as no descriptors left.
 */
export function whyRefused(root: Root, user: string): Halt | undefined {
  try {
    using top = root.dir("");
    if (isReadOnly(top)) return { kind: "failing", message: `${REFUSAL}: ${READ_ONLY}` };
    const why = whyNotReady(root, user);
    if (why === undefined) return undefined;
    const message = `${REFUSAL}: ${why}; restart the machine to have it looked at anew`;
    return { kind: "marker", message };
  } catch (error) {
    if (!isVolumeError(error)) throw error;
    const message = `${REFUSAL}: ${error.message}; attach a volume restored from the backup`;
    return { kind: "failing", message };
  }
}
