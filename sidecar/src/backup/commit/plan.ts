import type { Entry, Extent, FileEntry } from "../format/format.ts";
import { memberName } from "../format/format.ts";
import type { Index, IndexedEntry } from "../index.ts";
import type { NewContent, Reading } from "../read/reading.ts";

type Changed = Extract<Reading, { kind: "changed" }>;

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
  /** Paths whose reading no longer holds, or never did: they stay dirty. */
  readonly again: readonly string[];
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
  const parents = new Parents(readings, index);
  for (const reading of readings) {
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
        else again.add(path);
        break;
      case "changed": {
        if (reading.again) again.add(path);
        const taken = parents.wrongAbove(path);
        const entry = taken === undefined ? contents.place(reading) : undefined;
        if (entry === undefined) {
          again.add(path);
          if (taken !== undefined) again.add(taken);
          break;
        }
        items.push({ ...reading.item, entry });
        // Whatever lay in the folder is gone with it.
        if (entry.type !== "directory" && index.get(path)?.entry.type === "directory")
          gone.push(path);
        break;
      }
    }
  }
  const { members, bytes } = contents;
  return { restamped, items, ...deletions(gone, index), members, bytes, again: [...again] };
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
    // Content that was known when it was read may have been removed since.
    if (content === undefined) return known ? entry : undefined;
    const extents = known ?? this.#placed.get(entry.sha256) ?? this.#bring(entry, content);
    return extents ? { ...entry, extents: [...extents] } : undefined;
  }

  #bring(entry: FileEntry, content: NewContent): readonly Extent[] | undefined {
    const length = entry.size;
    let extent: Extent;
    if (content.kind === "inline") {
      const member = memberName(entry.path);
      this.members.set(member, content.bytes);
      extent = { commit: this.#options.position, member, offset: 0, length };
    } else {
      if (!this.#options.sent.has(entry.sha256)) return undefined;
      extent = { blob: entry.sha256, offset: 0, length };
    }
    this.bytes += length;
    this.#placed.set(entry.sha256, [extent]);
    return [extent];
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
