import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { errnoOf } from "./directory-error.ts";

export interface WalkOptions {
  readonly prefix: string;
  /** Only keys beyond this one. */
  readonly after: string;
  /** The name of a folder in the root that is not looked at. */
  readonly hidden: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The keys of the files below `root` in the order of their bytes, reading only folders that can hold one asked for.
 * A folder sorts as its name with a slash, so that "a-b" comes before "a/b". Links are not followed.
 */
export async function* keysInOrder(root: string, options: WalkOptions): AsyncGenerator<string> {
  // The prefix up to its last slash names the one folder that everything asked for is in.
  const base = options.prefix.slice(0, options.prefix.lastIndexOf("/") + 1);
  const parts = base.split("/").slice(0, -1);
  if (parts.some((part) => part === "" || part === "." || part === "..")) return;
  if (parts[0] === options.hidden) return;
  yield* keysBelow(root, base, options);
}

/** `base` is "" or a key's beginning with a slash at its end. */
async function* keysBelow(
  root: string,
  base: string,
  options: WalkOptions,
): AsyncGenerator<string> {
  const { prefix, after, hidden, signal } = options;
  signal?.throwIfAborted();
  const keys: string[] = [];
  for (const entry of await entriesOf(join(root, base))) {
    if (base === "" && entry.name === hidden) continue;
    const key = base + entry.name;
    if (entry.isDirectory()) {
      const below = `${key}/`;
      const wanted = below.startsWith(prefix) || prefix.startsWith(below);
      if (wanted && (below > after || after.startsWith(below))) keys.push(below);
    } else if (entry.isFile() && key.startsWith(prefix) && key > after) {
      keys.push(key);
    }
  }
  // The order of UTF-16 is the order of bytes for everything a key may have.
  keys.sort((a, b) => (a < b ? -1 : 1));
  for (const key of keys) {
    if (key.endsWith("/")) yield* keysBelow(root, key, options);
    else yield key;
  }
}

async function entriesOf(path: string): Promise<Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return [];
    throw error;
  }
}
