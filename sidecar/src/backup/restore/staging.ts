import {
  chmodSync,
  chownSync,
  closeSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  lchownSync,
  linkSync,
  read,
  write,
  writeSync,
  type BigIntStats,
} from "node:fs";
import { promisify } from "node:util";

import { nextTurn } from "../../platform/clock.ts";
import { Dir, type Owner } from "../../volume/dir.ts";
import { setTimes } from "../../volume/ns-times.ts";
import { removeTree } from "../../volume/remove-tree.ts";
import { isVolumeError, volumeError } from "../../volume/volume-error.ts";
import { BlockHasher, MIN_BLOCKS_BYTES } from "../format/blocks.ts";
import type { FileEntry } from "../format/format.ts";
import { parentOf } from "../history/fold.ts";
import type { DirectoryEntry, RestorePlan, SymlinkEntry } from "./restore-plan.ts";

const readLater = promisify(read);
const writeLater = promisify(write);

/** Folders that are held open, each with a descriptor. */
const OPEN_DIRS = 256;
const CHUNK_BYTES = 1024 * 1024;
const NAMES_PER_TURN = 500;

/**
 * A tree that is built in a folder of ours, to be moved into place when it is whole. Everything is made through
 * descriptors of folders and nothing is followed, so that no name in the tree leads out of it. Throws VolumeError.
 */
export class Staging implements Disposable {
  readonly #owner: Owner | undefined;
  /** By path, the one used last at the end. */
  readonly #dirs = new Map<string, Dir>();
  readonly #base: Dir;
  /** By path, of each larger file that is staged. */
  readonly #blocks = new Map<string, Uint8Array>();

  /** `base` stays the caller's. */
  constructor(base: Dir, options: { readonly owner?: Owner | undefined } = {}) {
    this.#base = base;
    this.#owner = options.owner;
  }

  [Symbol.dispose](): void {
    for (const dir of this.#dirs.values()) dir[Symbol.dispose]();
    this.#dirs.clear();
  }

  /**
   * Removes what an earlier run left and this plan does not want. Returns the files that are left, with their sizes: their
   * content has still to be verified.
   */
  async prepare(plan: RestorePlan, signal?: AbortSignal): Promise<Map<string, number>> {
    const folders = new Set([...plan.implied, ...plan.directories.map(({ path }) => path)]);
    const sizes = new Map(plan.files.map(({ entry }) => [entry.path, entry.size]));
    const left = new Map<string, number>();
    let seen = 0;
    const clean = async (path: string): Promise<void> => {
      // Its own descriptor: the others may be closed while something is removed.
      using dir = Dir.open(this.#dir(path).fd, path);
      for (const name of dir.names()) {
        signal?.throwIfAborted();
        const child = dir.pathOf(name);
        const stat = statOrMissing(dir, name);
        seen += 1;
        if (seen % NAMES_PER_TURN === 0) await nextTurn();
        if (stat?.isDirectory() === true && folders.has(child)) await clean(child);
        else if (stat?.isFile() === true && Number(stat.size) === sizes.get(child)) {
          left.set(child, Number(stat.size));
        } else await removeTree({ dir, name }, { signal });
      }
    };
    await clean("");
    return left;
  }

  /** True if the file that is staged at this path has the content of `entry`. It is made ready then, else removed. */
  async verify(entry: FileEntry): Promise<boolean> {
    const { dir, name } = this.#place(entry.path);
    let same = false;
    try {
      const fd = dir.openFile(name);
      try {
        same = await this.#isContent(fd, entry);
        if (same) this.#dress(fd, entry);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      if (!isVolumeError(error, "denied", "special", "missing")) throw error;
    }
    if (same) this.#time(entry);
    else this.discard(entry.path);
    return same;
  }

  /** Makes a file of content that is in hand. Returns false, and leaves nothing, where it is not that of `entry`. */
  writeNow(entry: FileEntry, pieces: readonly Uint8Array[]): boolean {
    if (!this.#isContentOf(entry, pieces)) return false;
    const { dir, name } = this.#place(entry.path);
    const fd = dir.create(name, 0o600);
    try {
      for (const piece of pieces) {
        for (let done = 0; done < piece.byteLength;) done += writeSync(fd, piece, done);
      }
      this.#dress(fd, entry);
    } catch (error) {
      throw volumeError(error, "write", entry.path);
    } finally {
      closeSync(fd);
    }
    this.#time(entry);
    return true;
  }

  /** As `writeNow`, as the content comes. What `pieces` throws is passed on, with nothing left. */
  async write(entry: FileEntry, pieces: AsyncIterable<Uint8Array>): Promise<boolean> {
    const { dir, name } = this.#place(entry.path);
    const fd = dir.create(name, 0o600);
    let whole = false;
    try {
      whole = await this.#fill(fd, { entry, pieces });
      if (whole) this.#dress(fd, entry);
    } catch (error) {
      throw volumeError(error, "write", entry.path);
    } finally {
      closeSync(fd);
      if (!whole) this.discard(entry.path);
    }
    if (whole) this.#time(entry);
    return whole;
  }

  /**
   * Takes over the file `name` in `from` by moving it, where it has the content of `entry`. Returns false where it has not,
   * or where something else took its name meanwhile.
   */
  async take(
    entry: FileEntry,
    from: { readonly dir: Dir; readonly name: string },
  ): Promise<boolean> {
    const fd = from.dir.openFile(from.name);
    try {
      const stat = fstatSync(fd, { bigint: true });
      if (Number(stat.size) !== entry.size || stat.nlink > 1n) return false;
      if (!(await this.#isContent(fd, entry))) return false;
      const { dir, name } = this.#place(entry.path);
      from.dir.rename(from.name, dir, name);
      const taken = dir.lstat(name);
      if (taken.ino !== stat.ino || taken.dev !== stat.dev) {
        this.discard(entry.path);
        return false;
      }
      this.#dress(fd, entry);
    } finally {
      closeSync(fd);
    }
    this.#time(entry);
    return true;
  }

  /** Gives the file at `first` another name. */
  link(entry: FileEntry, first: string): void {
    const from = this.#place(first);
    // Held here: making room for the second folder must not close the first.
    using source = Dir.open(from.dir.fd, from.dir.path);
    const to = this.#place(entry.path);
    try {
      linkSync(source.at(from.name), to.dir.at(to.name));
    } catch (error) {
      throw volumeError(error, "link", entry.path);
    }
  }

  symlink(entry: SymlinkEntry): void {
    const { dir, name } = this.#place(entry.path);
    dir.symlink(name, entry.target);
    if (this.#owner) lchownSync(dir.at(name), this.#owner.uid, this.#owner.gid);
    setTimes(dir, name, BigInt(entry.mtimeNs));
  }

  makeDirectory(path: string): void {
    this.#dir(path);
  }

  /** The last thing done to a folder: nothing may be made in it any more. */
  finishDirectory(path: string, entry?: DirectoryEntry): void {
    const dir = this.#dir(path);
    if (this.#owner) chownSync(dir.self, this.#owner.uid, this.#owner.gid);
    // setuid and setgid are dropped; a sticky folder stays one.
    chmodSync(dir.self, (entry?.mode ?? 0o755) & 0o1777);
    if (!entry) return;
    const { dir: parent, name } = this.#place(path);
    setTimes(parent, name, BigInt(entry.mtimeNs));
  }

  /** Removes the file or link at `path`, if one is there. */
  discard(path: string): void {
    const { dir, name } = this.#place(path);
    try {
      dir.unlink(name);
    } catch (error) {
      if (!isVolumeError(error, "missing")) throw error;
    }
  }

  /** The hashes of the blocks of a larger file that is staged here; undefined of any other. */
  blocksOf(path: string): Uint8Array | undefined {
    return this.#blocks.get(path);
  }

  lstat(path: string): BigIntStats {
    const { dir, name } = this.#place(path);
    return dir.lstat(name);
  }

  has(path: string): boolean {
    const { dir, name } = this.#place(path);
    return dir.has(name);
  }

  #place(path: string): { readonly dir: Dir; readonly name: string } {
    return { dir: this.#dir(parentOf(path)), name: path.slice(path.lastIndexOf("/") + 1) };
  }

  /** Valid until the next call. */
  #dir(path: string): Dir {
    if (path === "") return this.#base;
    const known = this.#dirs.get(path);
    if (known) {
      this.#dirs.delete(path);
      this.#dirs.set(path, known);
      return known;
    }
    const { dir: parent, name } = this.#place(path);
    const dir = openOrMake(parent, name);
    this.#dirs.set(path, dir);
    for (const [oldest, open] of this.#dirs) {
      if (this.#dirs.size <= OPEN_DIRS) break;
      this.#dirs.delete(oldest);
      open[Symbol.dispose]();
    }
    return dir;
  }

  async #fill(
    fd: number,
    { entry, pieces }: { readonly entry: FileEntry; readonly pieces: AsyncIterable<Uint8Array> },
  ): Promise<boolean> {
    const content = new ContentHasher(entry);
    for await (const piece of pieces) {
      content.update(piece);
      // More than the entry says is wrong already; the disk need not take all of it.
      if (content.size > entry.size) return false;
      for (let done = 0; done < piece.byteLength;) {
        const left = piece.byteLength - done;
        done += (await writeLater(fd, piece, done, left, null)).bytesWritten;
      }
    }
    return this.#isWhole(entry, content);
  }

  /** True if the open file holds the content of `entry` and nothing beyond. */
  async #isContent(fd: number, entry: FileEntry): Promise<boolean> {
    const content = new ContentHasher(entry);
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, entry.size + 1));
    while (content.size <= entry.size) {
      const { bytesRead } = await readLater(fd, buffer, 0, buffer.length, content.size);
      if (bytesRead === 0) break;
      content.update(buffer.subarray(0, bytesRead));
    }
    return this.#isWhole(entry, content);
  }

  #isContentOf(entry: FileEntry, pieces: readonly Uint8Array[]): boolean {
    const [only] = pieces;
    // One call and no object where there is one small piece, as nearly always.
    if (only && pieces.length === 1 && entry.size < MIN_BLOCKS_BYTES)
      return Bun.CryptoHasher.hash("sha256", only, "hex") === entry.sha256;
    const content = new ContentHasher(entry);
    for (const piece of pieces) content.update(piece);
    return this.#isWhole(entry, content);
  }

  #isWhole(entry: FileEntry, content: ContentHasher): boolean {
    const { size, sha256, blocks } = content.finish();
    if (size !== entry.size || sha256 !== entry.sha256) return false;
    if (blocks) this.#blocks.set(entry.path, blocks);
    return true;
  }

  /** Owner first: a change of owner takes permission bits away. */
  #dress(fd: number, entry: FileEntry): void {
    if (this.#owner) fchownSync(fd, this.#owner.uid, this.#owner.gid);
    fchmodSync(fd, entry.mode & 0o777);
  }

  #time(entry: FileEntry): void {
    const { dir, name } = this.#place(entry.path);
    setTimes(dir, name, BigInt(entry.mtimeNs));
  }
}

function openOrMake(parent: Dir, name: string): Dir {
  let dir: Dir;
  try {
    dir = parent.openDir(name);
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
    parent.mkdir(name, { mode: 0o700 });
    return parent.openDir(name);
  }
  // An earlier run may have finished it already, with bits that let nobody in.
  chmodSync(dir.self, 0o700);
  return dir;
}

function statOrMissing(dir: Dir, name: string): BigIntStats | undefined {
  try {
    return dir.lstat(name);
  } catch (error) {
    if (isVolumeError(error, "missing")) return undefined;
    throw error;
  }
}

/** Hashes a content, and its blocks where it is a larger one. */
class ContentHasher {
  readonly #whole = new Bun.CryptoHasher("sha256");
  readonly #blocks: BlockHasher | undefined;
  size = 0;

  constructor(entry: FileEntry) {
    this.#blocks = entry.size >= MIN_BLOCKS_BYTES ? new BlockHasher() : undefined;
  }

  update(bytes: Uint8Array): void {
    this.#whole.update(bytes);
    this.#blocks?.update(bytes);
    this.size += bytes.byteLength;
  }

  finish(): {
    readonly size: number;
    readonly sha256: string;
    readonly blocks?: Uint8Array | undefined;
  } {
    return { size: this.size, sha256: this.#whole.digest("hex"), blocks: this.#blocks?.finish() };
  }
}
