import { chmodSync, chownSync, lchownSync } from "node:fs";

import type { Clock } from "../platform/clock.ts";
import type { Dir, Owner } from "../volume/dir.ts";
import { Root } from "../volume/root.ts";
import { isVolumeError } from "../volume/volume-error.ts";

/** The folders on the volume that are the agent's. Source: machine.md, Volume. */
const AGENT_FOLDERS = ["openclaw", "workspace", "home"] as const;

const MAX_DEPTH = 256;
const MAX_ENTRIES = 5_000_000;
/** The loop is given back after so many entries, so that health is answered while a big tree changes hands. */
const BREATH_ENTRIES = 2_000;

export interface FoldersOptions {
  /** Whom the folders go to; undefined where the sidecar is not root, and then nothing changes hands. */
  readonly owner: Owner | undefined;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Looks at every entry, also below folders that have the right owner already. */
  readonly thorough?: boolean;
}

/**
 * Makes the agent's folders and gives them to it, links not followed. As root, the volume itself becomes root's: its
 * owner could rename the sidecar's own folder away. Resolves to how many entries changed hands. Throws `not_directory`
 * where a link or a file stands in a folder's place.
 */
export async function prepareFolders(dataDir: string, options: FoldersOptions): Promise<number> {
  const { owner } = options;
  using root = new Root(dataDir);
  using top = root.dir("");
  if (owner) {
    chownSync(top.self, 0, 0);
    chmodSync(top.self, 0o755);
  }
  const giver = owner ? new Giver({ ...options, owner }) : undefined;
  for (const name of AGENT_FOLDERS) {
    using dir = openOrMake(top, name);
    await giver?.giveTree(dir, 0);
  }
  return giver?.changed ?? 0;
}

function openOrMake(top: Dir, name: string): Dir {
  try {
    return top.openDir(name);
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
  top.mkdir(name, { mode: 0o700 });
  top.sync();
  return top.openDir(name);
}

class Giver {
  changed = 0;
  readonly #options: FoldersOptions & { readonly owner: Owner };
  #seen = 0;

  constructor(options: FoldersOptions & { readonly owner: Owner }) {
    this.#options = options;
  }

  /**
   * Gives `dir` and what is below it. The folder itself goes last, so that one with the right owner is done: below it
   * only its direct entries are looked at, and a cut-off run begins again where it was.
   */
  async giveTree(dir: Dir, depth: number): Promise<void> {
    const { owner, thorough = false } = this.#options;
    const isWrong = !this.#isOwned(dir.stat());
    if (isWrong || thorough || depth === 0) await this.#giveEntries(dir, depth);
    if (!isWrong) return;
    // Through the descriptor: this very folder, whatever has its name by now.
    chownSync(dir.self, owner.uid, owner.gid);
    this.changed += 1;
  }

  async #giveEntries(dir: Dir, depth: number): Promise<void> {
    for (const name of dir.names()) {
      await this.#breathe();
      try {
        const stat = dir.lstat(name);
        if (stat.isDirectory()) {
          if (depth >= MAX_DEPTH) continue;
          using child = dir.openDir(name);
          await this.giveTree(child, depth + 1);
        } else if (!this.#isOwned(stat)) {
          lchownSync(dir.at(name), this.#options.owner.uid, this.#options.owner.gid);
          this.changed += 1;
        }
      } catch (error) {
        // Gone, replaced by something else, or a name that is no UTF-8: nothing that this can give.
        if (!isVolumeError(error, "missing", "not_directory", "bad_name") && !isGone(error))
          throw error;
      }
    }
  }

  #isOwned(stat: { readonly uid: bigint; readonly gid: bigint }): boolean {
    const { uid, gid } = this.#options.owner;
    return stat.uid === BigInt(uid) && stat.gid === BigInt(gid);
  }

  async #breathe(): Promise<void> {
    this.#seen += 1;
    if (this.#seen > MAX_ENTRIES) {
      throw new Error(`Cannot give the folders to their owner: more than ${MAX_ENTRIES} entries`);
    }
    if (this.#seen % BREATH_ENTRIES === 0) await this.#options.clock.sleep(0, this.#options.signal);
  }
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === "ENOENT";
}
