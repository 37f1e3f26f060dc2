import { checkName } from "../../volume/dir.ts";
import { isOurs } from "../../volume/marker.ts";
import type { Entry, FileEntry } from "../format/format.ts";
import { parentOf } from "../history/fold.ts";
import { databaseOf } from "../stamp.ts";

export type DirectoryEntry = Extract<Entry, { type: "directory" }>;
export type SymlinkEntry = Extract<Entry, { type: "symlink" }>;

/** One file to be, with all its names. */
export interface PlannedFile {
  readonly entry: FileEntry;
  /** Further names of the same inode. */
  readonly links: readonly FileEntry[];
}

/** A path that cannot be made, and why. */
interface RefusedEntry {
  readonly entry: Entry;
  readonly reason: string;
}

/** A tree, sorted into what is done one after the other to bring it to a disk. */
export interface RestorePlan {
  /** Parents before what lies in them. */
  readonly directories: readonly DirectoryEntry[];
  /** Files whose content stands in the same object of the store are neighbours. */
  readonly files: readonly PlannedFile[];
  readonly symlinks: readonly SymlinkEntry[];
  readonly refused: readonly RefusedEntry[];
  /** Folders that others lie in and that are no entries themselves. */
  readonly implied: readonly string[];
  /** Sum of the sizes of `files`. */
  readonly bytes: number;
}

const BLOCK_BYTES = 4096;

/** Sorts a tree. A path that leads out of the volume, into what is ours, or through a file or link is refused. */
export function planRestore(entries: ReadonlyMap<string, Entry>): RestorePlan {
  const directories: DirectoryEntry[] = [];
  const symlinks: SymlinkEntry[] = [];
  const refused: RefusedEntry[] = [];
  const inodes = new Map<string, { entry: FileEntry; links: FileEntry[] }>();
  const implied = new Set<string>();
  const faults = new FolderFaults(entries);
  for (const path of [...entries.keys()].sort()) {
    const entry = entries.get(path);
    if (!entry || isStaleLog(entry, entries)) continue;
    const reason = faults.of(parentOf(path)) ?? faultOfPath(entry.path);
    if (reason !== undefined) {
      refused.push({ entry, reason });
      continue;
    }
    for (let dir = parentOf(path); dir !== "" && !entries.has(dir); dir = parentOf(dir)) {
      implied.add(dir);
    }
    if (entry.type === "directory") directories.push(entry);
    else if (entry.type === "symlink") symlinks.push(entry);
    else {
      const inode = inodeOf(entry);
      const known = inodes.get(inode);
      if (known) known.links.push(entry);
      else inodes.set(inode, { entry, links: [] });
    }
  }
  const files = [...inodes.values()].map((file) => ({ file, source: sourceOf(file.entry) }));
  files.sort((a, b) => (a.source < b.source ? -1 : a.source > b.source ? 1 : 0));
  return {
    directories,
    files: files.map(({ file }) => file),
    symlinks,
    refused,
    implied: [...implied].sort(),
    bytes: files.reduce((sum, { file }) => sum + file.entry.size, 0),
  };
}

/** A log beside a database that is whole in itself: from when it was not known for one. SQLite would put it into the database. */
function isStaleLog({ type, path }: Entry, entries: ReadonlyMap<string, Entry>): boolean {
  if (type !== "file") return false;
  const main = entries.get(databaseOf(path) ?? "");
  return main?.type === "file" && main.sqlite === true;
}

/** What files of these sizes, and so many other entries, take on the disk. */
export function roomFor(
  sizes: Iterable<number>,
  others: number,
): { bytes: number; inodes: number } {
  let bytes = others * BLOCK_BYTES;
  let inodes = others;
  for (const size of sizes) {
    bytes += Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
    inodes += 1;
  }
  return { bytes, inodes };
}

/** Why a folder can hold nothing; looked up once per folder. */
class FolderFaults {
  readonly #entries: ReadonlyMap<string, Entry>;
  readonly #known = new Map<string, string | undefined>([["", undefined]]);

  constructor(entries: ReadonlyMap<string, Entry>) {
    this.#entries = entries;
  }

  of(dir: string): string | undefined {
    if (this.#known.has(dir)) return this.#known.get(dir);
    const type = this.#entries.get(dir)?.type ?? "directory";
    const own = type === "directory" ? undefined : `"${dir}" is a ${type}, not a folder`;
    const fault = own ?? this.of(parentOf(dir));
    this.#known.set(dir, fault);
    return fault;
  }
}

function faultOfPath(path: string): string | undefined {
  const parts = path.split("/");
  try {
    for (const part of parts) checkName(part);
  } catch {
    return "not a path below the volume";
  }
  return isOurs(parts[0] ?? "") ? "it belongs to the machine itself" : undefined;
}

/** Names of one inode say the same `hardlink`, as long as they still have the same content. */
function inodeOf(entry: FileEntry): string {
  return entry.hardlink === undefined
    ? `p${entry.path}`
    : `l${entry.sha256}${entry.mtimeNs}/${entry.hardlink}`;
}

/** Sorts by the object that holds the (first of the) content. */
function sourceOf({ extents: [first], path }: FileEntry): string {
  if (!first) return "";
  if (typeof first.commit === "number") return `c${String(first.commit).padStart(10, "0")}`;
  return typeof first.part === "string" ? `p${first.part}` : `z${path}`;
}
