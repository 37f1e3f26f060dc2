import { constants, openSync } from "node:fs";
import { readdir, rename, rmdir, unlink } from "node:fs/promises";

import { tempName } from "./atomic.ts";
import { Dir } from "./dir.ts";
import { VolumeError, isVolumeError, volumeError } from "./volume-error.ts";

/** Linux: a descriptor that names a file without opening it. Node has no constant for it. */
const O_PATH = 0o10000000;
const { O_NOFOLLOW, O_DIRECTORY } = constants;

/** Deeper folders are first moved up to the top of the tree, so that a tree of any depth needs so many descriptors. */
const MAX_DEPTH = 48;
/** Moves up in one removal: enough for a million levels. */
const MAX_LIFTS = 25_000;
/** How often a folder that somebody keeps filling is emptied before giving up. */
const MAX_PASSES = 16;
/** Files deleted at the same time. */
const BATCH = 32;

export interface RemoveOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Deletes `name` in `dir`, a folder with all that is in it. No link is followed: what a link names stays. Names need not
 * be UTF-8. Resolves when it is gone, durably. Throws VolumeError: `missing` if there was nothing, `not_empty` where
 * somebody creates files faster than they are deleted. Deletes as far as it came when the signal aborts.
 */
export async function removeTree(
  { dir, name }: { readonly dir: Dir; readonly name: string },
  options: RemoveOptions = {},
): Promise<void> {
  options.signal?.throwIfAborted();
  dir.lstat(name);
  const bytes = Buffer.from(name);
  if ((await deleteFile(dir, bytes)) === "folder") {
    await new Removal(dir, bytes, options.signal).run();
  }
  await dir.flush();
}

interface Level {
  /** The folder that is too deep goes here. */
  readonly top: Dir;
  readonly depth: number;
}

/** One removal of a folder. Every descriptor stays open until the calls that go through it have ended. */
class Removal {
  readonly #parent: Dir;
  readonly #name: Buffer;
  readonly #signal: AbortSignal | undefined;
  #lifts = 0;

  constructor(parent: Dir, name: Buffer, signal: AbortSignal | undefined) {
    this.#parent = parent;
    this.#name = name;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    await this.#removeFolder(this.#parent, this.#name);
  }

  /** `above` says where the folder lies in the tree; without it, it is the top. A folder that cannot be emptied ends the whole removal. */
  async #removeFolder(parent: Dir, name: Buffer, above?: Level): Promise<void> {
    for (let pass = 0; pass < MAX_PASSES;) {
      const lifts = this.#lifts;
      if (await this.#tryFolder(parent, name, above)) return;
      // Folders moved up to the top are a reason for another pass that is nobody's fault.
      if (above || this.#lifts === lifts) pass += 1;
    }
    throw new VolumeError(
      "not_empty",
      `Cannot delete "${parent.pathOf(name.toString())}": files keep appearing in it`,
    );
  }

  /** Returns false if something is in the folder after all. */
  async #tryFolder(parent: Dir, name: Buffer, above: Level | undefined): Promise<boolean> {
    let folder: Dir;
    try {
      folder = openFolder(parent, name);
    } catch (error) {
      if (isVolumeError(error, "missing")) return true;
      // No folder any more.
      if (!isVolumeError(error, "not_directory")) throw error;
      return (await deleteFile(parent, name)) === "gone";
    }
    using open = folder;
    const level = { top: above?.top ?? open, depth: (above?.depth ?? 0) + 1 };
    for (const child of await this.#deleteFiles(open, await list(open))) {
      if (level.depth < MAX_DEPTH) await this.#removeFolder(open, child, level);
      else await this.#lift(open, child, level.top);
    }
    return deleteFolder(parent, name);
  }

  /** Deletes what is no folder and returns the folders. */
  async #deleteFiles(folder: Dir, names: readonly Buffer[]): Promise<Buffer[]> {
    const folders: Buffer[] = [];
    for (let i = 0; i < names.length; i += BATCH) {
      this.#signal?.throwIfAborted();
      const batch = names.slice(i, i + BATCH);
      // All of them to their end: a failure must not close the folder under the others.
      const results = await Promise.allSettled(batch.map((name) => deleteFile(folder, name)));
      for (const [index, result] of results.entries()) {
        if (result.status === "rejected") throw result.reason;
        const name = batch[index];
        if (result.value === "folder" && name) folders.push(name);
      }
    }
    return folders;
  }

  async #lift(folder: Dir, name: Buffer, top: Dir): Promise<void> {
    this.#signal?.throwIfAborted();
    this.#lifts += 1;
    if (this.#lifts > MAX_LIFTS) {
      throw new VolumeError("not_empty", `Cannot delete "${top.path}": it grows ever deeper`);
    }
    try {
      await rename(inside(folder, name), top.at(tempName()));
    } catch (error) {
      const failure = volumeError(error, "delete", folder.pathOf(name.toString()));
      if (!isVolumeError(failure, "missing")) throw failure;
    }
  }
}

async function list(folder: Dir): Promise<Buffer[]> {
  try {
    return await readdir(folder.self, { encoding: "buffer" });
  } catch (error) {
    throw volumeError(error, "list", folder.path);
  }
}

async function deleteFile(folder: Dir, name: Buffer): Promise<"gone" | "folder"> {
  try {
    await unlink(inside(folder, name));
    return "gone";
  } catch (error) {
    const failure = volumeError(error, "delete", folder.pathOf(name.toString()));
    if (isVolumeError(failure, "is_directory")) return "folder";
    if (isVolumeError(failure, "missing")) return "gone";
    throw failure;
  }
}

async function deleteFolder(parent: Dir, name: Buffer): Promise<boolean> {
  try {
    await rmdir(inside(parent, name));
    return true;
  } catch (error) {
    const failure = volumeError(error, "delete", parent.pathOf(name.toString()));
    if (isVolumeError(failure, "missing")) return true;
    if (isVolumeError(failure, "not_empty", "not_directory")) return false;
    throw failure;
  }
}

function openFolder(parent: Dir, name: Buffer): Dir {
  const path = parent.pathOf(name.toString());
  try {
    return new Dir(openSync(inside(parent, name), O_PATH | O_NOFOLLOW | O_DIRECTORY), path);
  } catch (error) {
    throw volumeError(error, "delete", path);
  }
}

/** As `Dir.at`, for names as the kernel lists them: any bytes, one component for certain. */
function inside(folder: Dir, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${folder.self}/`), name]);
}
