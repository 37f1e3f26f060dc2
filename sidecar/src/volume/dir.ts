import {
  chownSync,
  closeSync,
  constants,
  fstatSync,
  fsync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  type BigIntStats,
} from "node:fs";
import { promisify } from "node:util";

import { VolumeError, volumeError } from "./volume-error.ts";

/** Linux: a descriptor that names a file without opening it. Node has no constant for it. */
const O_PATH = 0o10000000;
const { O_NOFOLLOW, O_DIRECTORY, O_RDONLY, O_NONBLOCK } = constants;

/** Who owns what we create; undefined leaves it to the process. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * A folder, held by descriptor. Whoever renames it or swaps a link into its place meanwhile, every method acts in this
 * very folder: the kernel resolves `/proc/self/fd/N/name` from the descriptor. No method follows a link at `name`.
 * Methods throw VolumeError. Close it, or declare it with `using`.
 */
export class Dir implements Disposable {
  readonly fd: number;
  /** Path below the root, "" for the root itself, without links. For messages and answers, never to act on. */
  readonly path: string;

  constructor(fd: number, path: string) {
    this.fd = fd;
    this.path = path;
  }

  /** A descriptor of its own for the folder that `fd` names. */
  static open(fd: number, path: string): Dir {
    return new Dir(openSync(`/proc/self/fd/${fd}`, O_PATH | O_DIRECTORY), path);
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }

  /** A path for `name` that the kernel resolves from this folder. Throws `bad_name` unless it is one plain component. */
  at(name: string): string {
    checkName(name);
    return `/proc/self/fd/${this.fd}/${name}`;
  }

  /** This folder itself, as a path the kernel resolves from the descriptor. */
  get self(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  /** The path of `name` below the root. */
  pathOf(name: string): string {
    return this.path === "" ? name : `${this.path}/${name}`;
  }

  stat(): BigIntStats {
    return fstatSync(this.fd, { bigint: true });
  }

  lstat(name: string): BigIntStats {
    return this.#act("look at", name, (path) => lstatSync(path, { bigint: true }));
  }

  /** True if anything has this name here. */
  has(name: string): boolean {
    try {
      this.lstat(name);
      return true;
    } catch (error) {
      if (error instanceof VolumeError && error.kind === "missing") return false;
      throw error;
    }
  }

  /** The names in this folder, in no order. A name that is not UTF-8 contains U+FFFD and cannot be opened through it. */
  names(): string[] {
    try {
      return readdirSync(this.self);
    } catch (error) {
      throw volumeError(error, "list", this.path);
    }
  }

  /** A descriptor for whatever `name` is, opened without side effects: for fstat and `reopen`. The caller closes it. */
  openPath(name: string): number {
    return this.#act("open", name, (path) => openSync(path, O_PATH | O_NOFOLLOW));
  }

  /** Opens a regular file for reading. Links, folders, devices, sockets and FIFOs are refused and never block. */
  openFile(name: string): number {
    const handle = this.openPath(name);
    try {
      const stat = fstatSync(handle);
      if (stat.isDirectory()) throw refused("is_directory", "open", this.pathOf(name));
      if (stat.isSymbolicLink()) throw refused("outside_root", "open", this.pathOf(name));
      if (!stat.isFile()) throw refused("special", "open", this.pathOf(name));
      // Through the descriptor: exactly the inode that was checked, whatever has the name by now.
      return openSync(`/proc/self/fd/${handle}`, O_RDONLY | O_NONBLOCK);
    } catch (error) {
      throw volumeError(error, "open", this.pathOf(name));
    } finally {
      closeSync(handle);
    }
  }

  /** The folder `name` in this one; a link is refused with `not_directory`. */
  openDir(name: string): Dir {
    const fd = this.#act("open", name, (path) => openSync(path, O_PATH | O_NOFOLLOW | O_DIRECTORY));
    return new Dir(fd, this.pathOf(name));
  }

  /** Creates a new file, exclusively, open for reading and writing. The caller closes it. */
  create(name: string, mode: number): number {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | O_NOFOLLOW;
    return this.#act("create", name, (path) => openSync(path, flags, mode));
  }

  mkdir(
    name: string,
    options: { readonly mode?: number; readonly owner?: Owner | undefined } = {},
  ): void {
    const { mode = 0o755, owner } = options;
    this.#act("create", name, (path) => {
      mkdirSync(path, { mode });
      if (!owner) return;
      // By descriptor, and folders only: whatever was swapped in meanwhile, no file and no link changes hands.
      using made = this.openDir(name);
      chownSync(made.self, owner.uid, owner.gid);
    });
  }

  readlink(name: string): string {
    return this.#act("read the link", name, (path) => readlinkSync(path));
  }

  symlink(name: string, target: string): void {
    this.#act("create the link", name, (path) => symlinkSync(target, path));
  }

  unlink(name: string): void {
    this.#act("delete", name, (path) => unlinkSync(path));
  }

  rmdir(name: string): void {
    this.#act("delete", name, (path) => rmdirSync(path));
  }

  /** Moves `name` to `toName` in `to`, replacing a file (or an empty folder by a folder), atomically. */
  rename(name: string, to: Dir, toName: string): void {
    const target = to.at(toName);
    this.#act("move", name, (path) => renameSync(path, target));
  }

  /** Makes the names in this folder durable. */
  sync(): void {
    const fd = openSync(this.self, O_RDONLY | O_DIRECTORY);
    try {
      fsyncSync(fd);
    } catch (error) {
      throw volumeError(error, "sync", this.path);
    } finally {
      closeSync(fd);
    }
  }

  /** As `sync`, off the event loop: a busy disk takes its time. */
  async flush(): Promise<void> {
    const fd = openSync(this.self, O_RDONLY | O_DIRECTORY);
    try {
      await fsyncLater(fd);
    } catch (error) {
      throw volumeError(error, "sync", this.path);
    } finally {
      closeSync(fd);
    }
  }

  #act<T>(verb: string, name: string, action: (path: string) => T): T {
    try {
      return action(this.at(name));
    } catch (error) {
      throw volumeError(error, verb, this.pathOf(name));
    }
  }
}

const fsyncLater = promisify(fsync);

/** Opens the folder at an absolute path, links followed: only for paths that come from configuration. */
export function openTrustedDir(path: string): number {
  try {
    return openSync(path, O_PATH | O_DIRECTORY);
  } catch (error) {
    throw volumeError(error, "open", path);
  }
}

/** Throws `bad_name` unless `name` is one component that a Linux file can have. */
export function checkName(name: string): void {
  if (
    name === "" ||
    name === "." ||
    name === ".." ||
    name.includes("/") ||
    name.includes("\0") ||
    (name.length > 85 && Buffer.byteLength(name) > 255)
  ) {
    throw new VolumeError(
      "bad_name",
      `Cannot use the name ${JSON.stringify(name.slice(0, 80))}: not a file name`,
    );
  }
}

function refused(
  kind: "is_directory" | "outside_root" | "special",
  verb: string,
  path: string,
): VolumeError {
  const found = {
    is_directory: "it is a folder",
    outside_root: "it is a link",
    special: "not a regular file",
  };
  return new VolumeError(kind, `Cannot ${verb} "${path}": ${found[kind]}`);
}
