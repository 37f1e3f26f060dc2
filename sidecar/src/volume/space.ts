import { accessSync, constants, statfsSync } from "node:fs";
import { statfs } from "node:fs/promises";

import type { Dir } from "./dir.ts";
import { volumeError } from "./volume-error.ts";

/** Below this share of the volume, or below `RESERVE_BYTES`, writes are refused. */
const RESERVE_SHARE = 0.05;
const RESERVE_BYTES = 64 * 1024 * 1024;
/** What is left where a write of a few pages has failed. */
const FULL_BYTES = 1024 * 1024;

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

/** True if nobody can write to the volume any more for want of room, or of inodes. Throws VolumeError. */
export function isFull(dir: Dir): boolean {
  try {
    const { bsize, bavail, files, ffree } = statfsSync(dir.self);
    // A file system that does not count inodes says 0 of 0.
    return bavail * bsize < FULL_BYTES || (files > 0 && ffree === 0);
  } catch (error) {
    throw volumeError(error, "measure", dir.path);
  }
}

/** True if the file system is mounted read-only by now, as the kernel does with a disk that fails. */
export function isReadOnly(dir: Dir): boolean {
  try {
    accessSync(dir.self, constants.W_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EROFS";
  }
}

/** True if what is free is the machine's reserve: commits and deletions go on, writes from outside are refused (507). */
export function belowReserve({ bytes, free }: Space): boolean {
  return free < Math.max(bytes * RESERVE_SHARE, RESERVE_BYTES);
}
