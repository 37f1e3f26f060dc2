import type { BigIntStats } from "node:fs";

import type { Entry, FileEntry } from "../format/format.ts";
import type { IndexedEntry } from "../index.ts";
import { blobOf } from "./content.ts";
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
  return known && !known.racy && known.stamp === stamp ? { kind: "same", item: known } : undefined;
}

type Fresh = IndexedEntry & { readonly entry: Entry };

/** What there is to send of a file: its bytes, or the open file that has them. */
interface Sent {
  readonly bytes?: Uint8Array;
  readonly open?: OpenFile;
  readonly again: boolean;
  readonly onChanged?: () => void;
}

/** Compares what was read with what the store has. */
export function settle(item: Fresh, context: ReadContext, sent: Sent = { again: false }): Reading {
  const { entry } = item;
  const { again } = sent;
  const known = context.index.get(entry.path);
  if (known && isSame(known.entry, entry)) {
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

function contentOf(entry: FileEntry, { bytes, open, onChanged }: Sent): NewContent | undefined {
  if (bytes) return { kind: "inline", bytes };
  const { path, size, sha256 } = entry;
  return open && blobOf(open.take(), { path, size, sha256, onChanged });
}

export function fileItem(
  { path, before }: Opened,
  read: { readonly sha256: string; readonly length: number },
  { context, sqlite = false }: { readonly context: ReadContext; readonly sqlite?: boolean },
): { readonly entry: FileEntry; readonly inode?: string } {
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
  return inode === undefined ? { entry } : { entry, inode };
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
