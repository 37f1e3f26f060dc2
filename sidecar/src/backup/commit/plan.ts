import type { Entry, Extent, FileEntry } from "../format/format.ts";
import { deltaName, memberName } from "../format/format.ts";
import type { Index, IndexedEntry } from "../index.ts";
import { extentsOf } from "../read/delta.ts";
import type { NewContent, Reading } from "../read/reading.ts";
import { LOG_SUFFIXES, UNRESTORED, databaseOf } from "../stamp.ts";

type Changed = Extract<Reading, { kind: "changed" }>;
type DeltaContent = Extract<NewContent, { kind: "delta" }>;
type WholeContent = Exclude<NewContent, DeltaContent>;

/** What a batch of readings comes to, compared with the index as it stands now. */
export interface Plan {
  /** Nothing but their stamp is new. */
  readonly restamped: readonly IndexedEntry[];
  readonly items: readonly IndexedEntry[];
  /** Paths that are gone; a folder stands for all that was in it. */
  readonly deleted: readonly string[];
  /** How many entries of the index go with them. */
  readonly deletedCount: number;
  readonly members: ReadonlyMap<string, Uint8Array>;
  /** Content that this commit brings into the store, in bytes. */
  readonly bytes: number;
  /** Paths that stay dirty: they changed while they were read, or are in `left`. */
  readonly again: readonly string[];
  /** Paths whose reading no longer holds, or never did: nothing of it is in the commit. */
  readonly left: readonly string[];
}

export interface PlanOptions {
  readonly index: Pick<Index, "get" | "countBelow" | "locate">;
  /** The number of the commit that is being made. */
  readonly position: number;
  /** Hashes whose blobs were sent for this batch, with their sizes. */
  readonly sent: ReadonlyMap<string, number>;
}

/** One reading per path: the last one. */
export function latest(batch: readonly Reading[]): Reading[] {
  return [...new Map(batch.map((reading) => [pathOf(reading), reading])).values()];
}

export function pathOf(reading: Reading): string {
  return reading.kind === "same" || reading.kind === "changed"
    ? reading.item.entry.path
    : reading.path;
}

/** The content of a reading that is not in the store yet. */
export function contentOf(reading: Reading): NewContent | undefined {
  return reading.kind === "changed" ? reading.content : undefined;
}

/**
 * Decides what the commit at `position` says. Readings may be older than the index: what was recorded meanwhile wins, and
 * the path is looked at again.
 */
export function planCommit(readings: readonly Reading[], options: PlanOptions): Plan {
  const { index } = options;
  const contents = new Contents(options);
  const restamped: IndexedEntry[] = [];
  const items: IndexedEntry[] = [];
  const gone: string[] = [];
  const again = new Set<string>();
  const left = new Set<string>();
  const parents = new Parents(readings, index);
  const databases = new Set<string>();
  for (const reading of logsLast(readings)) {
    const path = pathOf(reading);
    switch (reading.kind) {
      case "skipped":
        break;
      case "gone":
        gone.push(path);
        break;
      case "same":
        if (Bun.deepEquals(index.get(path)?.entry, reading.item.entry))
          restamped.push(reading.item);
        else left.add(path);
        break;
      case "changed": {
        if (isFile(reading.item.entry) && databases.has(databaseOf(path) ?? "")) {
          gone.push(path);
          break;
        }
        if (reading.again) again.add(path);
        const taken = parents.wrongAbove(path);
        const entry = taken === undefined ? contents.place(reading) : undefined;
        if (entry === undefined) {
          left.add(path);
          if (taken !== undefined) again.add(taken);
          break;
        }
        items.push({ ...reading.item, entry });
        if (isFile(entry) && entry.sqlite === true) databases.add(path);
        // Whatever lay in the folder is gone with it.
        if (entry.type !== "directory" && index.get(path)?.entry.type === "directory")
          gone.push(path);
        break;
      }
    }
  }
  // A log from when the file was not known for a database: restored beside this copy, it would be put into it.
  for (const path of databases) {
    for (const suffix of LOG_SUFFIXES) {
      const log = index.get(path + suffix)?.entry;
      if (log && isFile(log)) gone.push(path + suffix);
    }
  }
  const { members, bytes } = contents;
  return {
    restamped,
    items,
    ...deletions(gone, index),
    members,
    bytes,
    again: [...left.union(again)],
    left: [...left],
  };
}

/** What may be the log of a database comes after all that may be the database. */
function logsLast(readings: readonly Reading[]): readonly Reading[] {
  const isLog = (reading: Reading): boolean => databaseOf(pathOf(reading)) !== undefined;
  if (!readings.some(isLog)) return readings;
  return [...readings.filter((reading) => !isLog(reading)), ...readings.filter(isLog)];
}

function isFile(entry: Entry): entry is FileEntry {
  return entry.type === "file";
}

/** Of the paths that are gone, those the index has, each tree once. */
function deletions(
  gone: readonly string[],
  index: PlanOptions["index"],
): { readonly deleted: readonly string[]; readonly deletedCount: number } {
  const all = new Set(gone);
  const deleted: string[] = [];
  let deletedCount = 0;
  for (const path of all) {
    if (ancestors(path).some((folder) => all.has(folder))) continue;
    const count = index.countBelow(path);
    if (count === 0) continue;
    deleted.push(path);
    deletedCount += count;
  }
  return { deleted, deletedCount };
}

function ancestors(path: string): string[] {
  const folders: string[] = [];
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1))
    folders.push(path.slice(0, at));
  return folders;
}

/** Finds or makes the place of each content, the same content once. */
class Contents {
  readonly members = new Map<string, Uint8Array>();
  bytes = 0;
  readonly #options: PlanOptions;
  readonly #placed = new Map<string, readonly Extent[]>();

  constructor(options: PlanOptions) {
    this.#options = options;
  }

  /** The entry with its extents; undefined where its content is neither in the store nor at hand. */
  place({ item: { entry }, content }: Changed): Entry | undefined {
    if (entry.type !== "file") return entry;
    if (entry.size === 0) {
      // Nothing to store; there for those who unpack the commit by hand.
      this.members.set(memberName(entry.path), new Uint8Array());
      return { ...entry, extents: [] };
    }
    const { index } = this.#options;
    const known = index.locate(entry.sha256);
    // Content that was known when it was read may have moved since, or be gone.
    if (content === undefined) return known ? { ...entry, extents: known } : undefined;
    const extents = known ?? this.#placed.get(entry.sha256) ?? this.#bring(entry, content);
    return extents ? { ...entry, extents: [...extents] } : undefined;
  }

  #bring(entry: FileEntry, content: NewContent): readonly Extent[] | undefined {
    const extents =
      content.kind === "delta" ? this.#build(entry, content) : this.#whole(entry, content);
    if (extents) this.#placed.set(entry.sha256, extents);
    return extents;
  }

  #whole({ path, sha256 }: FileEntry, content: WholeContent): Extent[] | undefined {
    const extent =
      content.kind === "inline" ? this.#add(memberName(path), content.bytes) : this.#sent(sha256);
    return extent && [extent];
  }

  /** What is new, among slices of what the path has now: of that alone the pieces are true. */
  #build({ path }: FileEntry, { base, pieces, fresh }: DeltaContent): Extent[] | undefined {
    const item = this.#options.index.get(path);
    if (item?.entry.type !== "file" || item.entry.sha256 !== base || item.stamp === UNRESTORED)
      return undefined;
    const extent =
      fresh.kind === "inline" ? this.#add(deltaName(path), fresh.bytes) : this.#sent(fresh.sha256);
    return extent && extentsOf(pieces, item.entry.extents, extent);
  }

  #add(member: string, bytes: Uint8Array): Extent {
    // A file that was only cut brings nothing.
    if (bytes.length > 0) this.members.set(member, bytes);
    this.bytes += bytes.length;
    return { commit: this.#options.position, member, offset: 0, length: bytes.length };
  }

  /** The blob that was sent for this batch. */
  #sent(sha256: string): Extent | undefined {
    const length = this.#options.sent.get(sha256);
    if (length === undefined) return undefined;
    this.bytes += length;
    return { blob: sha256, offset: 0, length };
  }
}

/** Keeps a commit from putting something below what the history still takes for a file. */
class Parents {
  readonly #index: PlanOptions["index"];
  readonly #now = new Map<string, boolean>();
  readonly #wrong = new Map<string, string | undefined>();

  constructor(readings: readonly Reading[], index: PlanOptions["index"]) {
    this.#index = index;
    for (const reading of readings) {
      if (reading.kind === "changed")
        this.#now.set(pathOf(reading), reading.item.entry.type === "directory");
      else if (reading.kind === "gone") this.#now.set(reading.path, true);
    }
  }

  /** The folder above `path` that is no folder in the history after this commit; undefined if all of them are, or are unknown. */
  wrongAbove(path: string): string | undefined {
    const slash = path.lastIndexOf("/");
    if (slash < 0) return undefined;
    const parent = path.slice(0, slash);
    if (this.#wrong.has(parent)) return this.#wrong.get(parent);
    const type = this.#now.has(parent) ? undefined : this.#index.get(parent)?.entry.type;
    const fits = this.#now.get(parent) ?? (type === undefined || type === "directory");
    const wrong = fits ? this.wrongAbove(parent) : parent;
    this.#wrong.set(parent, wrong);
    return wrong;
  }
}
