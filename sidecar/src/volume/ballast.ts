import { randomBytes } from "node:crypto";
import { closeSync, fsync, write } from "node:fs";
import { promisify } from "node:util";

import type { Dir } from "./dir.ts";
import { OWN_FOLDER } from "./marker.ts";
import type { Root } from "./root.ts";
import { readSpace } from "./space.ts";
import { isVolumeError, volumeError } from "./volume-error.ts";

const NAME = "ballast";
/** Source: backup.md, "Never lose the backup". */
const BALLAST_BYTES = 16 * 1024 * 1024;
/** It is room for the machine where there is room: a volume that is nearly full is not filled by it. */
const FREE_BYTES = 4 * BALLAST_BYTES;
const CHUNK_BYTES = 1024 * 1024;

const writeLater = promisify(write);
const fsyncLater = promisify(fsync);

/**
 * Sets room aside on the volume, for what the machine itself must write where others have filled it. Does nothing where it
 * is set aside already, or little is free. Throws VolumeError.
 */
export async function layBallast(root: Root): Promise<void> {
  using dir = root.dir(OWN_FOLDER, { links: "refuse" });
  if (isLaid(dir)) return;
  const { free } = await readSpace(dir);
  if (free < FREE_BYTES) return;
  dropIn(dir);
  const fd = dir.create(NAME, 0o600);
  try {
    // Nothing that a file system could keep in less room.
    const chunk = randomBytes(CHUNK_BYTES);
    for (let left = BALLAST_BYTES; left > 0;) {
      left -= (await writeLater(fd, chunk, 0, Math.min(left, CHUNK_BYTES), null)).bytesWritten;
    }
    await fsyncLater(fd);
  } catch (error) {
    dropIn(dir);
    throw volumeError(error, "write", dir.pathOf(NAME));
  } finally {
    closeSync(fd);
  }
}

/** Gives the room back. Returns false where there was none. Throws VolumeError. */
export function dropBallast(root: Root): boolean {
  using dir = root.dir(OWN_FOLDER, { links: "refuse" });
  return dropIn(dir);
}

function isLaid(dir: Dir): boolean {
  return dir.has(NAME) && Number(dir.lstat(NAME).size) === BALLAST_BYTES;
}

function dropIn(dir: Dir): boolean {
  try {
    dir.unlink(NAME);
    return true;
  } catch (error) {
    if (isVolumeError(error, "missing")) return false;
    throw error;
  }
}
