import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";

import { encodeCommit } from "../../src/backup/format/codec.ts";
import {
  FORMAT,
  keys,
  memberName,
  type CommitHeader,
  type Entry,
  type Extent,
} from "../../src/backup/format/format.ts";
import { encodeManifest } from "../../src/backup/format/manifest.ts";
import { INLINE_BYTES } from "../../src/backup/read/reading.ts";
import type { Store } from "../../src/store/store.ts";

export interface HistoryOptions {
  readonly user?: string;
  readonly machine?: string;
}

/** What else a commit says than the tree does. */
export interface Overrides {
  /** Changes each entry that is about to be committed. */
  readonly entry?: (entry: Entry) => Entry;
  readonly header?: Partial<CommitHeader>;
}

/** Writes a history of folders of this machine, in the simplest way that the format allows. */
export class HistoryWriter {
  readonly #store: Store;
  readonly #options: Required<HistoryOptions>;
  readonly #located = new Map<string, Extent[]>();
  #headers: CommitHeader[] = [];
  entries = new Map<string, Entry>();
  head: CommitHeader | undefined;

  constructor(store: Store, options: HistoryOptions = {}) {
    this.#store = store;
    this.#options = { user: "me", machine: "m1", ...options };
  }

  /** Commits the tree below the folder `path` as it stands now: what changed, and what is gone. */
  async commitTree(path: string, overrides: Overrides = {}): Promise<CommitHeader> {
    const members = new Map<string, Uint8Array>();
    const position = (this.head?.position ?? 0) + 1;
    const now = new Map<string, Entry>();
    for (const entry of await this.#describe(path, { position, members })) {
      now.set(entry.path, overrides.entry?.(entry) ?? entry);
    }
    const deleted = [...this.entries.keys()].filter((old) => !now.has(old));
    const entries = [...now.values()].filter(
      (entry) => !Bun.deepEquals(entry, this.entries.get(entry.path)),
    );
    return this.commit({ entries, deleted, members, header: overrides.header ?? {} });
  }

  /** Commits exactly this. */
  async commit(content: {
    readonly entries?: readonly Entry[];
    readonly deleted?: readonly string[];
    readonly members?: ReadonlyMap<string, Uint8Array>;
    readonly header?: Partial<CommitHeader>;
  }): Promise<CommitHeader> {
    const { entries = [], deleted = [], members = new Map<string, Uint8Array>() } = content;
    const header: CommitHeader = {
      format: FORMAT,
      position: (this.head?.position ?? 0) + 1,
      id: crypto.randomUUID(),
      ...(this.head ? { parent: this.head.id } : {}),
      ...this.#options,
      time: (this.head?.time ?? 1_700_000_000_000) + 1,
      changed: entries.length,
      deletedCount: deleted.length,
      bytes: [...members.values()].reduce((sum, bytes) => sum + bytes.length, 0),
      ...content.header,
    };
    const commit = { ...header, entries: [...entries], deleted: [...deleted] };
    await this.#store.put(keys.commit(header.position), await encodeCommit(commit, members), {
      ifAbsent: true,
    });
    for (const path of deleted) {
      for (const old of this.entries.keys()) {
        if (old === path || old.startsWith(`${path}/`)) this.entries.delete(old);
      }
    }
    for (const entry of entries) this.entries.set(entry.path, entry);
    this.head = header;
    this.#headers.push(header);
    return header;
  }

  /** Writes the manifest of the tree as it stands. */
  async checkpoint(): Promise<void> {
    if (!this.head) throw new Error("Cannot write a checkpoint: there is no commit");
    const { position, id, time, user, machine } = this.head;
    const entries = [...this.entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
    const header = {
      format: FORMAT,
      position,
      id,
      time,
      user,
      machine,
      entryCount: entries.length,
      commits: this.#headers,
    };
    await this.#store.put(keys.manifest(position), await encodeManifest(header, entries));
    this.#headers = [];
  }

  async #describe(
    root: string,
    into: { readonly position: number; readonly members: Map<string, Uint8Array> },
  ): Promise<Entry[]> {
    const entries: Entry[] = [];
    const inodes = new Map<string, string>();
    const walk = async (dir: string): Promise<void> => {
      for (const name of readdirSync(`${root}/${dir}`).sort()) {
        const path = dir === "" ? name : `${dir}/${name}`;
        if (path === ".sidecar" || path === "lost+found") continue;
        const stat = lstatSync(`${root}/${path}`, { bigint: true });
        const mtimeNs = stat.mtimeNs.toString();
        const mode = Number(stat.mode) & 0o777;
        if (stat.isDirectory()) {
          entries.push({ type: "directory", path, mode, mtimeNs });
          await walk(path);
        } else if (stat.isSymbolicLink()) {
          const target = readlinkSync(`${root}/${path}`);
          entries.push({ type: "symlink", path, target, mtimeNs });
        } else if (stat.isFile()) {
          const bytes = readFileSync(`${root}/${path}`);
          const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
          const extents = await this.#place({ path, bytes, sha256 }, into);
          const inode = String(stat.ino);
          const hardlink = stat.nlink > 1n ? (inodes.get(inode) ?? path) : undefined;
          inodes.set(inode, hardlink ?? path);
          entries.push({
            type: "file",
            path,
            mode,
            mtimeNs,
            size: bytes.length,
            sha256,
            extents,
            ...(hardlink === undefined ? {} : { hardlink }),
          });
        }
      }
    };
    await walk("");
    return entries;
  }

  async #place(
    file: { readonly path: string; readonly bytes: Uint8Array; readonly sha256: string },
    into: { readonly position: number; readonly members: Map<string, Uint8Array> },
  ): Promise<Extent[]> {
    const { path, bytes, sha256 } = file;
    if (bytes.length === 0) return [];
    const known = this.#located.get(sha256);
    if (known) return known;
    let extent: Extent;
    if (bytes.length > INLINE_BYTES) {
      await this.#store.put(keys.blob(sha256), bytes);
      extent = { blob: sha256, offset: 0, length: bytes.length };
    } else {
      const member = memberName(path);
      into.members.set(member, bytes);
      extent = { commit: into.position, member, offset: 0, length: bytes.length };
    }
    this.#located.set(sha256, [extent]);
    return [extent];
  }
}
