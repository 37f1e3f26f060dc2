import type { Commit, Entry } from "../format/format.ts";

/**
 * A tree as commits build it up: the same rules as `Index.record`, in memory. A deleted path takes along all that was
 * below it, whether or not it was itself an entry.
 */
export class Tree {
  readonly #entries = new Map<string, Entry>();
  /** The paths that lie directly in a folder, entries or not; built when a folder is first deleted. */
  #children: Map<string, Set<string>> | undefined;

  get entries(): ReadonlyMap<string, Entry> {
    return this.#entries;
  }

  /** Makes one commit part of the tree: what it deletes first, then its entries. */
  apply({ deleted, entries }: Pick<Commit, "deleted" | "entries">): void {
    for (const path of deleted) this.#remove(path);
    for (const entry of entries) this.put(entry);
  }

  put(entry: Entry): void {
    this.#entries.set(entry.path, entry);
    if (this.#children) this.#enroll(this.#children, entry.path);
  }

  #remove(path: string): void {
    const children = (this.#children ??= this.#enrolled());
    const todo = [path];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      this.#entries.delete(next);
      for (const child of children.get(next) ?? []) todo.push(child);
      children.delete(next);
    }
    children.get(parentOf(path))?.delete(path);
  }

  #enrolled(): Map<string, Set<string>> {
    const children = new Map<string, Set<string>>();
    for (const path of this.#entries.keys()) this.#enroll(children, path);
    return children;
  }

  /** Also enters the folders above that are no entries themselves, so that deleting one of them finds the path. */
  #enroll(children: Map<string, Set<string>>, path: string): void {
    for (let at = path; at !== ""; at = parentOf(at)) {
      const siblings = children.get(parentOf(at));
      if (siblings?.has(at)) return;
      if (siblings) siblings.add(at);
      else children.set(parentOf(at), new Set([at]));
    }
  }
}

/** The folder that `path` lies in; "" is the root. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}
