import type { Clock } from "../../platform/clock.ts";

/** Source of all three: backup.md, "Settle"; sync.md, section 7, 4. */
const MAX_WAIT_MS = 2_000;
const MAX_PER_FOLDER = 128;
const MAX_HINTS = 512;

interface Change {
  readonly path: string;
  readonly kind: "path" | "tree";
  readonly since: number;
}

/** That something happened at a path, or anywhere in a folder. Times are of the monotonic clock. */
export interface Hint {
  readonly path: string;
  kind: "path" | "tree";
  since: number;
  /** When the wait for quiet began. */
  readonly start: number;
  due: number;
}

/** Hints by path, of which there are never many: more than 128 in a folder, or 512 in all, are merged into whole folders. */
export class Hints {
  readonly #clock: Clock;
  readonly #hints = new Map<string, Hint>();
  readonly #perFolder = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#hints.size;
  }

  values(): IterableIterator<Hint> {
    return this.#hints.values();
  }

  get(path: string): Hint | undefined {
    return this.#hints.get(path);
  }

  /** Adds a hint, which is due then at the earliest, and two seconds after it was first added at the latest. */
  add(item: Change, due: number): void {
    const now = this.#clock.monotonic();
    const above = this.#treeAbove(item.path);
    if (above) {
      above.since = Math.min(above.since, item.since);
      above.due = Math.min(Math.max(above.due, due), above.start + MAX_WAIT_MS);
      return;
    }
    const known = this.#hints.get(item.path);
    if (known) {
      if (item.kind === "tree" && known.kind === "path") this.#absorb(known);
      known.since = Math.min(known.since, item.since);
      known.due = Math.min(Math.max(known.due, due), known.start + MAX_WAIT_MS);
      return;
    }
    const hint: Hint = { ...item, start: now, due };
    if (item.kind === "tree") this.#absorb(hint);
    this.#hints.set(item.path, hint);
    const folder = parentOf(item.path);
    const inFolder = (this.#perFolder.get(folder) ?? 0) + 1;
    this.#perFolder.set(folder, inFolder);
    if (inFolder > MAX_PER_FOLDER) this.add({ path: folder, kind: "tree", since: hint.since }, due);
    else if (this.#hints.size > MAX_HINTS) this.#merge();
  }

  /** Takes a hint out. */
  drop(path: string): void {
    if (!this.#hints.delete(path)) return;
    const folder = parentOf(path);
    const left = (this.#perFolder.get(folder) ?? 1) - 1;
    if (left === 0) this.#perFolder.delete(folder);
    else this.#perFolder.set(folder, left);
  }

  clear(): void {
    this.#hints.clear();
    this.#perFolder.clear();
  }

  /** Makes `tree` stand for all hints below it. */
  #absorb(tree: Hint): void {
    tree.kind = "tree";
    const prefix = tree.path === "" ? "" : `${tree.path}/`;
    for (const hint of this.#hints.values()) {
      if (hint === tree || !hint.path.startsWith(prefix)) continue;
      tree.since = Math.min(tree.since, hint.since);
      this.drop(hint.path);
    }
  }

  /** Replaces the deepest hints by their folders until half of the room is free. */
  #merge(): void {
    while (this.#hints.size > MAX_HINTS / 2) {
      let deepest = 0;
      for (const path of this.#hints.keys()) deepest = Math.max(deepest, depthOf(path));
      for (const hint of this.#hints.values()) {
        if (depthOf(hint.path) !== deepest || !this.#hints.has(hint.path)) continue;
        this.add({ path: parentOf(hint.path), kind: "tree", since: hint.since }, hint.due);
      }
    }
  }

  #treeAbove(path: string): Hint | undefined {
    for (let folder = path; folder !== "";) {
      folder = parentOf(folder);
      const hint = this.#hints.get(folder);
      if (hint?.kind === "tree") return hint;
    }
    return undefined;
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function depthOf(path: string): number {
  return path === "" ? 0 : path.split("/").length;
}
