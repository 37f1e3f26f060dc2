import { closeSync, realpathSync, type BigIntStats } from "node:fs";

import { Dir, checkName, openTrustedDir, type Owner } from "./dir.ts";
import { VolumeError, isVolumeError } from "./volume-error.ts";

/** Linux gives up after as many links in one path. */
const MAX_LINKS = 40;
/** Deep enough for any real tree, bounded because each level holds a descriptor while walking. */
const MAX_DEPTH = 256;

export interface RootOptions {
  /** Folders below the root, such as ".sidecar", that no path may name or lead into. */
  readonly private?: readonly string[];
  /** Absolute prefixes that mean a folder below the root, such as ["/home/node/workspace", "workspace"]. The root's own path is one. */
  readonly aliases?: readonly (readonly [prefix: string, folder: string])[];
}

export interface WalkOptions {
  /** "inside" follows links as long as they stay below the root; "refuse" fails on any. */
  readonly links?: "inside" | "refuse";
  /** Creates folders that are missing on the way. */
  readonly create?: {
    readonly mode?: number;
    readonly owner?: Owner | undefined;
    /** Called with the path of each folder made, outermost first. */
    readonly onCreate?: (path: string) => void;
  };
}

/** A name in an open folder: what an operation acts on. */
export interface Place extends Disposable {
  readonly dir: Dir;
  readonly name: string;
  /** Path below the root, without links. */
  readonly path: string;
}

/**
 * A folder that no path leads out of. Paths are relative, with "/" between components. Each component is opened from
 * its parent's descriptor and never followed by the kernel; links are read and walked here, so that what was checked is
 * what is used, whatever the agent swaps meanwhile. Source: files-api.md, Safety.
 */
export class Root implements Disposable {
  /** The absolute path without links. */
  readonly path: string;
  readonly #fd: number;
  readonly #private: readonly string[];
  readonly #aliases: readonly (readonly [string, string])[];

  /** Opens the folder at an absolute path that comes from configuration. */
  constructor(path: string, options: RootOptions = {}) {
    this.#fd = openTrustedDir(path);
    this.path = realpathSync(path);
    this.#private = options.private ?? [];
    this.#aliases = [
      ...(options.aliases ?? []),
      [this.path, ""] as const,
      [path, ""] as const,
    ].toSorted((a, b) => b[0].length - a[0].length);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /** The path below the root that an absolute path means, undefined if it is outside. Words only: nothing is looked up. */
  relative(absolute: string): string | undefined {
    for (const [prefix, folder] of this.#aliases) {
      if (absolute === prefix) return folder;
      if (absolute.startsWith(prefix === "/" ? "/" : `${prefix}/`)) {
        const rest = absolute.slice(prefix.length).replace(/^\/+/, "");
        return folder === "" ? rest : rest === "" ? folder : `${folder}/${rest}`;
      }
    }
    return undefined;
  }

  /** The folder at `path` ("" is the root itself), links inside followed. Throws `missing`, `not_directory`, `outside_root`, `private`, `bad_name`. */
  dir(path: string, options: WalkOptions = {}): Dir {
    const walk = new Walk(this, this.#fd, options);
    try {
      walk.push(parsePath(path));
      while (walk.step()) continue;
      return walk.takeDir();
    } finally {
      walk.close();
    }
  }

  /** The parent folder of `path` and its last name, which is not looked at: for creating, replacing, moving and deleting. */
  place(path: string, options: WalkOptions = {}): Place {
    const parts = parsePath(path);
    const name = parts.pop();
    if (name === undefined)
      throw new VolumeError("is_directory", `Cannot use "${path}": it is the root`);
    const dir = this.dir(parts.join("/"), options);
    return this.#place(dir, name);
  }

  /** As `place`, but links at the end are followed too, as long as they stay inside: for reading and writing. What is there may be missing. */
  target(path: string, options: WalkOptions = {}): Place {
    const walk = new Walk(this, this.#fd, options);
    try {
      walk.push(parsePath(path));
      const name = walk.toLast();
      if (name === undefined)
        throw new VolumeError("is_directory", `Cannot use "${path}": it is a folder`);
      return this.#place(walk.takeDir(), name);
    } finally {
      walk.close();
    }
  }

  /** What is at `path`, links inside followed. Still a link only if one was swapped in at this moment. */
  stat(path: string): BigIntStats {
    try {
      using place = this.target(path);
      return place.dir.lstat(place.name);
    } catch (error) {
      if (!isVolumeError(error, "is_directory")) throw error;
      using dir = this.dir(path);
      return dir.stat();
    }
  }

  /** Throws `denied` where `path` (below the root, without links) is a folder that an alias names, or holds such a one or a private one. */
  checkFixed(path: string): void {
    const fixed = [...this.#private, ...this.#aliases.map(([, folder]) => folder)];
    if (path === "" || fixed.some((folder) => folder === path || folder.startsWith(`${path}/`))) {
      throw new VolumeError(
        "denied",
        `Cannot delete, move or replace "${path}": the machine needs it where it is`,
      );
    }
  }

  /** Throws `private` where `path` (below the root, without links) is a private folder or lies in one. */
  checkPrivate(path: string): void {
    for (const folder of this.#private) {
      if (path === folder || path.startsWith(`${folder}/`)) {
        throw new VolumeError("private", `Cannot use "${path}": it belongs to the machine itself`);
      }
    }
  }

  #place(dir: Dir, name: string): Place {
    const path = dir.pathOf(name);
    try {
      this.checkPrivate(path);
    } catch (error) {
      dir[Symbol.dispose]();
      throw error;
    }
    return { dir, name, path, [Symbol.dispose]: () => dir[Symbol.dispose]() };
  }
}

/** The components of a path from outside. `.` and `..` are refused here: only links may say them. */
function parsePath(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  for (const part of parts) checkName(part);
  // Before a part of it is made. The last name may lie in the deepest folder.
  if (parts.length > MAX_DEPTH + 1) throw tooDeep(path);
  return parts;
}

/** The state of one walk: the folders it is in, from the root down, and the components still to go. */
class Walk {
  readonly #root: Root;
  readonly #options: WalkOptions;
  readonly #dirs: Dir[];
  #todo: string[] = [];
  #links = 0;

  constructor(root: Root, rootFd: number, options: WalkOptions) {
    this.#root = root;
    this.#options = options;
    this.#dirs = [Dir.open(rootFd, "")];
  }

  /** Puts components before those still to go. */
  push(parts: readonly string[]): void {
    this.#todo.unshift(...parts);
  }

  /** Enters the next component. Returns false when there is none. */
  step(): boolean {
    const part = this.#todo.shift();
    if (part === undefined) return false;
    if (part === "..") {
      this.#leave();
      return true;
    }
    const here = this.#here;
    this.#root.checkPrivate(here.pathOf(part));
    try {
      this.#enter(here, part);
    } catch (error) {
      if (isVolumeError(error, "not_directory") && this.#follow(here, part)) return true;
      if (!isVolumeError(error, "missing") || !this.#options.create) throw error;
      this.#create(here, part);
    }
    return true;
  }

  /** Goes on until only a last component that is no link is left, and returns it; undefined where the path ends in a folder. */
  toLast(): string | undefined {
    for (;;) {
      if (this.#todo.length !== 1) {
        if (!this.step()) return undefined;
        continue;
      }
      const last = this.#todo[0] ?? "";
      if (last === "..") {
        this.step();
        continue;
      }
      this.#todo = [];
      this.#root.checkPrivate(this.#here.pathOf(last));
      if (!this.#follow(this.#here, last)) return last;
    }
  }

  /** The folder reached; the caller closes it. */
  takeDir(): Dir {
    const dir = this.#dirs.pop();
    if (!dir) throw new Error("Cannot take the folder of a walk: it was taken already");
    return dir;
  }

  close(): void {
    for (const dir of this.#dirs) dir[Symbol.dispose]();
    this.#dirs.length = 0;
  }

  get #here(): Dir {
    const dir = this.#dirs.at(-1);
    if (!dir) throw new Error("Cannot go on with a walk: it was closed");
    return dir;
  }

  #enter(here: Dir, name: string): void {
    if (this.#dirs.length > MAX_DEPTH) throw tooDeep(here.path);
    this.#dirs.push(here.openDir(name));
  }

  #create(here: Dir, name: string): void {
    try {
      here.mkdir(name, this.#options.create);
      this.#options.create?.onCreate?.(here.pathOf(name));
    } catch (error) {
      // Somebody else made it meanwhile; entering it decides whether it will do.
      if (!isVolumeError(error, "exists")) throw error;
    }
    this.#enter(here, name);
  }

  #leave(): void {
    if (this.#dirs.length === 1) throw outside(this.#here.path);
    this.takeDir()[Symbol.dispose]();
  }

  /** Takes the link `name` apart into components still to go. Returns false if it is no link. */
  #follow(here: Dir, name: string): boolean {
    let target: string;
    try {
      if (!here.lstat(name).isSymbolicLink()) return false;
      target = here.readlink(name);
    } catch (error) {
      // Gone, or no link any more: whoever opens it next says what that means.
      if (isVolumeError(error, "missing", "bad_name")) return false;
      throw error;
    }
    const path = here.pathOf(name);
    if (this.#options.links === "refuse") {
      throw new VolumeError("outside_root", `Cannot follow "${path}": links are not allowed here`);
    }
    this.#links += 1;
    if (this.#links > MAX_LINKS)
      throw new VolumeError("outside_root", `Cannot follow "${path}": too many links`);
    const inside = target.startsWith("/") ? this.#root.relative(target) : target;
    if (inside === undefined) throw outside(path);
    if (target.startsWith("/")) while (this.#dirs.length > 1) this.#leave();
    this.push(inside.split("/").filter((part) => part !== "" && part !== "."));
    return true;
  }
}

function tooDeep(path: string): VolumeError {
  return new VolumeError(
    "bad_name",
    `Cannot open "${path.slice(0, 200)}…": more than ${MAX_DEPTH} folders deep`,
  );
}

function outside(path: string): VolumeError {
  return new VolumeError("outside_root", `Cannot follow "${path}": it leads out of the volume`);
}
