import { statfs } from "node:fs/promises";

import type { Dir } from "./dir.ts";
import { volumeError } from "./volume-error.ts";

/** Below this share of the volume, or below `RESERVE_BYTES`, writes are refused. */
const RESERVE_SHARE = 0.05;
const RESERVE_BYTES = 64 * 1024 * 1024;

/** How full a volume is. */
export interface Space {
  readonly bytes: number;
  /** Bytes that an ordinary user may still write. */
  readonly free: number;
  /** Files and folders there are. 0 on a file system that does not count them. */
  readonly files: number;
}

/** The space of the volume that `dir` is on. Throws VolumeError. */
export async function readSpace(dir: Dir): Promise<Space> {
  try {
    const { bsize, blocks, bavail, files, ffree } = await statfs(dir.self);
    return { bytes: blocks * bsize, free: bavail * bsize, files: files - ffree };
  } catch (error) {
    throw volumeError(error, "measure", dir.path);
  }
}

/** True if what is free is the machine's reserve: commits and deletions go on, writes from outside are refused (507). */
export function belowReserve({ bytes, free }: Space): boolean {
  return free < Math.max(bytes * RESERVE_SHARE, RESERVE_BYTES);
}
