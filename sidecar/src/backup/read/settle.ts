import type { BigIntStats } from "node:fs";

import type { Entry, FileEntry } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import { UNRESTORED } from "../stamp.ts";
import { blobOf, type Content } from "./content.ts";
import type { Delta } from "./delta.ts";
import type { OpenFile } from "./open-file.ts";
import type { ReadContext } from "./read-context.ts";
import type { NewContent, Reading, SkipReason } from "./reading.ts";

/** What changed so short a time before it was read may have changed again behind the same stamp. */
const RACY_MS = 2_000;
export interface Opened {
  readonly path: string;
  readonly open: OpenFile;
  readonly before: BigIntStats;
  readonly stamp: string;
}

/** The reading of a path that looks as the index has it, so that it need not be read. */
export function unchanged(path: string, stamp: string, context: ReadContext): Reading | undefined {
  const known = context.index.get(path);
  if (!known || known.racy || known.stamp !== stamp) return undefined;
  // The index keeps the blocks as they are.
  const { blocks: _, ...item } = known;
  return { kind: "same", item };
}

type Fresh = IndexedEntry & { readonly entry: Entry };

/** What there is to send of a file: its bytes, what is new in them, or the open file that has them. */
interface Sent {
  readonly bytes?: Uint8Array;
  readonly delta?: Delta | undefined;
  readonly open?: OpenFile;
  readonly again: boolean;
  readonly onChanged?: () => void;
}

/** Compares what was read with what the store has. */
export function settle(item: Fresh, context: ReadContext, sent: Sent = { again: false }): Reading {
  const { entry } = item;
  const { again } = sent;
  const known = context.index.get(entry.path);
  // What could not be restored is sent anew when it is back: the store does not have it for sure.
  if (known && known.stamp !== UNRESTORED && isSame(known.entry, entry)) {
    return { kind: "same", item: { ...item, entry: known.entry } };
  }
  if (entry.type !== "file" || entry.size === 0) {
    return { kind: "changed", item, content: undefined, again };
  }
  const extents = context.index.locate(entry.sha256);
  if (extents) {
    return {
      kind: "changed",
      item: { ...item, entry: { ...entry, extents } },
      content: undefined,
      again,
    };
  }
  return { kind: "changed", item, content: contentOf(entry, sent), again };
}

function contentOf(entry: FileEntry, sent: Sent): NewContent | undefined {
  const { bytes, delta, open, onChanged } = sent;
  if (bytes) return { kind: "inline", bytes };
  const { path, size, sha256 } = entry;
  if (!delta) return open && blobOf(open.take(), { path, size, sha256, onChanged });
  const { fresh, ...rest } = delta;
  if (fresh.bytes) {
    const inline = { kind: "inline", bytes: fresh.bytes } as const;
    return { kind: "delta", ...rest, fresh: inline, dispose: () => undefined };
  }
  if (!open) return undefined;
  const { ranges, length } = fresh;
  const blob = blobOf(open.take(), {
    path,
    size: length,
    sha256: fresh.sha256,
    ranges,
    onChanged,
  });
  return {
    kind: "delta",
    ...rest,
    fresh: { kind: "blob", sha256: fresh.sha256, source: blob.source },
    dispose: () => blob.dispose(),
  };
}

export function fileItem(
  { path, before }: Opened,
  read: Content,
  { context, sqlite = false }: { readonly context: ReadContext; readonly sqlite?: boolean },
): { readonly entry: FileEntry; readonly inode?: string; readonly blocks?: Uint8Array } {
  const inode = before.nlink > 1n ? `${before.dev}:${before.ino}` : undefined;
  const entry: FileEntry = {
    type: "file",
    path,
    mode: Number(before.mode & 0o777n),
    mtimeNs: String(before.mtimeNs),
    size: read.length,
    sha256: read.sha256,
    extents: [],
    ...(inode === undefined ? {} : { hardlink: context.linkGroup(inode, path) }),
    ...(sqlite ? { sqlite } : {}),
  };
  return {
    entry,
    ...(inode === undefined ? {} : { inode }),
    ...(read.blocks ? { blocks: read.blocks } : {}),
  };
}

export function unstable<T extends { readonly entry: FileEntry }>(item: T, is: boolean): T {
  return is ? { ...item, entry: { ...item.entry, unstable: true } } : item;
}

/** True if `b`, just read, adds nothing to what `a` says of the path, wherever the store has the content. */
function isSame(a: Entry, b: Entry): boolean {
  if (a.type === "file" && b.type === "file") {
    return (
      a.mode === b.mode &&
      a.mtimeNs === b.mtimeNs &&
      a.size === b.size &&
      a.sha256 === b.sha256 &&
      a.hardlink === b.hardlink &&
      a.sqlite === b.sqlite &&
      // The same bytes at rest: they need not be recorded as restless.
      (a.unstable === b.unstable || b.unstable === true)
    );
  }
  if (a.type === "directory" && b.type === "directory") {
    return a.mode === b.mode && a.mtimeNs === b.mtimeNs;
  }
  if (a.type === "symlink" && b.type === "symlink") {
    return a.target === b.target && a.mtimeNs === b.mtimeNs;
  }
  return false;
}

/** True if a write could hide behind the stamp of what was read so soon after its last change. */
export function isRacy(context: ReadContext, { mtimeNs, ctimeNs }: BigIntStats): boolean {
  return isRecent(context, mtimeNs) || isRecent(context, ctimeNs);
}

/** A time far ahead says nothing about when the file was written, so it is no reason to read it for ever. */
export function isRecent({ clock }: ReadContext, timeNs: bigint): boolean {
  return Math.abs(clock.now() - Number(timeNs / 1_000_000n)) < RACY_MS;
}

export function sha256Of(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

export function skipped(path: string, reason: SkipReason, message: string): Reading {
  return { kind: "skipped", path, reason, message };
}
