import type { BigIntStats } from "node:fs";
import { readdir } from "node:fs/promises";
import { extname } from "node:path";

import type { Dir } from "../volume/dir.ts";
import type { Root } from "../volume/root.ts";
import { isVolumeError, volumeError } from "../volume/volume-error.ts";
import { FilesError } from "./files-error.ts";
import type { MemoryShare } from "./memory-budget.ts";
import { spellChild, type RequestPath } from "./paths.ts";

/** One row of a listing, as it goes over the wire. */
export interface ListedEntry {
  readonly name: string;
  /** In the spelling of the request. */
  readonly path: string;
  readonly type: "file" | "directory";
  readonly size: number;
  /** ISO 8601, UTC. */
  readonly modified: string;
  /** Without the dot, "" where there is none; absent for folders. */
  readonly extension?: string;
}

export interface ListOptions {
  readonly signal: AbortSignal;
  readonly share: MemoryShare;
  /** Default 50,000. */
  readonly maxEntries?: number | undefined;
}

/** Sorting more would hold up everything else. */
const MAX_ENTRIES = 50_000;
/** What one takes on the way to the answer. */
const ENTRY_BYTES = 1_024;
/** Entries looked at before others get a turn of the event loop. */
const CHUNK = 128;
/** One for all: making one costs more than a thousand comparisons. */
const collator = new Intl.Collator("en");

/**
 * What is in the folder, folders first, then by name; dotfiles and private folders are left out. A link shows as what it
 * leads to, and as itself (a file) where it leads nowhere or out of the volume. Throws VolumeError, FilesError `too_large`
 * where there are too many.
 */
export async function listFolder(
  root: Root,
  at: RequestPath,
  { signal, share, maxEntries = MAX_ENTRIES }: ListOptions,
): Promise<ListedEntry[]> {
  using dir = root.dir(at.path);
  const names = await namesIn(dir);
  if (names.length > maxEntries) {
    throw new FilesError(
      "too_large",
      `Cannot list "${dir.path}": it has ${names.length} entries, more than ${maxEntries}`,
    );
  }
  share.grow(names.length * ENTRY_BYTES);
  const entries: ListedEntry[] = [];
  for (const [index, name] of names.entries()) {
    if (index % CHUNK === CHUNK - 1) {
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    }
    const stat = lookAt(root, dir, name);
    if (stat) entries.push(entry(name, { stat, path: spellChild(at.spelled, name) }));
  }
  return entries.sort(byTypeAndName);
}

async function namesIn(dir: Dir): Promise<string[]> {
  try {
    return (await readdir(dir.self)).filter((name) => !name.startsWith("."));
  } catch (error) {
    throw volumeError(error, "list", dir.path);
  }
}

/** Undefined for what is gone again, has a name that is not UTF-8, or is private. */
function lookAt(root: Root, dir: Dir, name: string): BigIntStats | undefined {
  try {
    const path = dir.pathOf(name);
    root.checkPrivate(path);
    const stat = dir.lstat(name);
    return stat.isSymbolicLink() ? (behindLink(root, path) ?? stat) : stat;
  } catch (error) {
    if (isVolumeError(error, "missing", "private", "bad_name")) return undefined;
    throw error;
  }
}

function behindLink(root: Root, path: string): BigIntStats | undefined {
  try {
    return root.stat(path);
  } catch (error) {
    if (isVolumeError(error)) return undefined;
    throw error;
  }
}

function entry(
  name: string,
  { stat, path }: { readonly stat: BigIntStats; readonly path: string },
): ListedEntry {
  const common = {
    name,
    path,
    size: Number(stat.size),
    modified: new Date(Number(stat.mtimeNs / 1_000_000n)).toISOString(),
  };
  return stat.isDirectory()
    ? { ...common, type: "directory" }
    : { ...common, type: "file", extension: extname(name).slice(1) };
}

function byTypeAndName(a: ListedEntry, b: ListedEntry): number {
  if (a.type !== b.type) return a.type === "directory" ? -1 : 1;
  // Names that a reader takes for equal (composed, decomposed) still have an order.
  return collator.compare(a.name, b.name) || (a.name < b.name ? -1 : 1);
}
