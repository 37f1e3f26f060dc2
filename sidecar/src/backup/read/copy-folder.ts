import { fchownSync } from "node:fs";

import type { Dir, Owner } from "../../volume/dir.ts";
import { removeTree } from "../../volume/remove-tree.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { COPIES_FOLDER } from "../notice/ignore.ts";
import { chunksOf } from "./content.ts";
import { OpenFile } from "./open-file.ts";

/** The name of a database's copy, beside which SQLite may make files of its own. */
export const COPY_NAME = "copy.sqlite";
const SUFFIXES = ["", "-wal", "-shm", "-journal"];

/** A folder on the volume for one copy of a database, where the user that SQLite runs as may write. Gone with its scope. */
export class CopyFolder implements Disposable {
  readonly dir: Dir;
  /** Absolute path. */
  readonly path: string;
  readonly #parent: Dir;
  readonly #name: string;
  readonly #owner: Owner | undefined;

  constructor(root: Root, owner: Owner | undefined) {
    // Entered by the agent's user, listed by nobody but us.
    this.#parent = root.dir(COPIES_FOLDER, { links: "refuse", create: { mode: 0o711 } });
    this.#name = crypto.randomUUID();
    this.#owner = owner;
    try {
      this.#parent.mkdir(this.#name, { mode: 0o700, owner });
      this.dir = this.#parent.openDir(this.#name);
    } catch (error) {
      this.#parent[Symbol.dispose]();
      throw error;
    }
    this.path = `${root.path}/${COPIES_FOLDER}/${this.#name}`;
  }

  /** Copies at most `size` bytes of the file `name` of `from` to `as`. */
  async take(
    from: Dir,
    name: string,
    options: { readonly as: string; readonly size: bigint },
  ): Promise<void> {
    using source = new OpenFile(from.openFile(name));
    using target = new OpenFile(this.dir.create(options.as, 0o600));
    for await (const chunk of chunksOf(source.fd, Number(options.size))) target.write(chunk);
    if (this.#owner) fchownSync(target.fd, this.#owner.uid, this.#owner.gid);
  }

  [Symbol.dispose](): void {
    using parent = this.#parent;
    using dir = this.dir;
    for (const suffix of SUFFIXES) removeIfThere(() => dir.unlink(COPY_NAME + suffix));
    removeIfThere(() => parent.rmdir(this.#name));
  }
}

/** Removes what a killed process left behind. To be called before the first copy is made. */
export async function cleanCopies(root: Root): Promise<void> {
  try {
    using copies = root.dir(COPIES_FOLDER, { links: "refuse" });
    for (const name of copies.names()) await removeTree({ dir: copies, name });
  } catch (error) {
    // The agent, whose user the folders belong to, can keep filling one: that is no reason to have no backup.
    if (!isVolumeError(error) || error.kind === "failing") throw error;
  }
}

/** What the agent put there to be in the way stays until the next boot: it takes nothing but its own room. */
function removeIfThere(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if (!isVolumeError(error, "missing", "not_empty", "not_directory", "is_directory")) throw error;
  }
}
