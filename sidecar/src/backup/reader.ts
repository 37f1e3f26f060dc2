import { readlinkSync, type BigIntStats } from "node:fs";

import type { Place } from "../volume/root.ts";
import { isVolumeError, volumeError } from "../volume/volume-error.ts";
import { blobOf, hashOf, readStart } from "./content.ts";
import type { Entry, FileEntry } from "./format.ts";
import type { IndexedEntry } from "./index.ts";
import { OpenFile } from "./open-file.ts";
import type { ReadContext, ReadPlace } from "./read-context.ts";
import { INLINE_BYTES, type NewContent, type Reading, type SkipReason } from "./reading.ts";
import { hasSqliteHeader, isSqliteHeader, logOf } from "./sqlite-file.ts";
import { databaseOf, databaseStamp, stampOf } from "./stamp.ts";

/** What changed so short a time before it was read may have changed again behind the same stamp. */
const RACY_MS = 2_000;
/** How often a path that turns into something else between two looks is looked at again. */
const TRIES = 3;
/** Enough of a file's start to know a database by. */
const HEADER_BYTES = 16;

/**
 * Reads one path of the volume as it is now. No link is followed in any component. A path that is missing, ignored, no
 * kind of thing that is backed up, below a file or below a link is `gone`. Throws only for what concerns no path alone,
 * such as no descriptors left. Whoever gets content of kind `blob` disposes of it.
 */
export async function readPath(path: string, context: ReadContext): Promise<Reading> {
  await context.breathe();
  for (let attempt = 1; ; attempt += 1) {
    let place: ReadPlace;
    try {
      place = context.placeOf(path, { anew: attempt > 1 });
    } catch (error) {
      if (isVolumeError(error, "missing", "not_directory", "outside_root")) return gone(path);
      return asSkipped(path, error);
    }
    using _ = place;
    try {
      return await readPlace(place, context);
    } catch (raw) {
      const error = volumeError(raw, "read", path);
      if (isVolumeError(error, "missing")) {
        // Only a folder that has its name right now can say so.
        if (place.reused && attempt === 1) continue;
        return gone(path);
      }
      const turned = isVolumeError(
        error,
        "is_directory",
        "not_directory",
        "outside_root",
        "special",
      );
      if (!turned || attempt >= TRIES) return asSkipped(path, error);
    }
  }
}

async function readPlace(place: Place, context: ReadContext): Promise<Reading> {
  const { dir, name, path } = place;
  const stat = dir.lstat(name);
  if (context.ignore.covers(path, stat.isDirectory())) return gone(path);
  const stamp = stampOf(stat);
  if (stamp === undefined) return gone(path);
  if (stat.dev !== context.device) {
    return skipped(
      path,
      "other_mount",
      `Cannot back up "${path}": another file system is mounted there`,
    );
  }
  if (stat.isFile()) return readFile(place, context);
  const known = unchanged(path, stamp, context);
  if (known) return known;
  const item = { stamp, racy: isRacy(context, stat) };
  if (stat.isDirectory()) {
    const entry: Entry = {
      type: "directory",
      path,
      mode: Number(stat.mode & 0o1777n),
      mtimeNs: String(stat.mtimeNs),
    };
    return settle({ ...item, entry }, context);
  }
  const target = readlinkSync(dir.at(name), { encoding: "buffer" });
  const text = target.toString("utf8");
  if (!Buffer.from(text).equals(target)) {
    return skipped(path, "bad_name", `Cannot back up "${path}": the link's target is not UTF-8`);
  }
  return settle(
    { ...item, entry: { type: "symlink", path, target: text, mtimeNs: String(stat.mtimeNs) } },
    context,
  );
}

async function readFile(place: Place, context: ReadContext): Promise<Reading> {
  const { dir, name, path } = place;
  if (belongsToDatabase(place, context)) return gone(path);
  using open = new OpenFile(dir.openFile(name));
  const before = open.stat();
  if (before.size > BigInt(context.maxFileBytes)) {
    return skipped(
      path,
      "too_big",
      `Cannot back up "${path}": ${before.size} bytes, more than the ${context.maxFileBytes} allowed`,
    );
  }
  if (isSqliteHeader(readStart(open.fd, HEADER_BYTES))) {
    const reading = await readDatabase(place, before, context);
    if (reading) return reading;
  }
  const stamp = stampOf(before) ?? "";
  // Awaited here, because the file is closed with this scope.
  return (
    unchanged(path, stamp, context) ?? (await readPlain({ path, open, before, stamp }, context))
  );
}

interface Opened {
  readonly path: string;
  readonly open: OpenFile;
  readonly before: BigIntStats;
  readonly stamp: string;
}

async function readPlain(opened: Opened, context: ReadContext): Promise<Reading> {
  const { path, open, before, stamp } = opened;
  const racy = isRacy(context, before);
  const size = Number(before.size);
  if (size <= INLINE_BYTES) {
    const bytes = readStart(open.fd, size);
    const again = stampOf(open.stat()) !== stamp;
    const read = { sha256: sha256Of(bytes), length: bytes.length };
    const item = { ...fileItem(opened, read, { context }), stamp, racy };
    return settle(unstable(item, again), context, { bytes, again });
  }
  if (context.isRestless(path) && context.hasRoom(size)) return readCopy(opened, context);
  const read = await hashOf(open.fd, size);
  const after = open.stat();
  const again = stampOf(after) !== stamp;
  // What only grew still starts with what was hashed. Anything else may never read the same again.
  const grew = after.size > before.size && read.length === size;
  if (again && !grew && context.hasRoom(size)) return readCopy(opened, context);
  const item = unstable({ ...fileItem(opened, read, { context }), stamp, racy }, again);
  return settle(item, context, { open, again, onChanged: () => context.setRestless(path, true) });
}

/** Reads a file that never rests by way of a private copy, which is what is hashed and sent. */
async function readCopy(opened: Opened, context: ReadContext): Promise<Reading> {
  const { path, open, before, stamp } = opened;
  const racy = isRacy(context, before);
  using copy = new OpenFile(context.createStaging());
  const read = await hashOf(open.fd, Number(before.size), (chunk) => copy.write(chunk));
  const again = stampOf(open.stat()) !== stamp;
  context.setRestless(path, again);
  const item = unstable({ ...fileItem(opened, read, { context }), stamp, racy }, again);
  return settle(item, context, { open: copy, again });
}

/** Reads a database through SQLite. Undefined where it is none, whatever its header says, or nothing but its bytes is left to save. */
async function readDatabase(
  place: Place,
  before: BigIntStats,
  context: ReadContext,
): Promise<Reading | undefined> {
  const { dir, name, path } = place;
  const log = logOf(dir, name);
  const stamp = databaseStamp(stampOf(before) ?? "", log?.stamp);
  const known = unchanged(path, stamp, context);
  if (known) return known;
  const racy = isRacy(context, before) || (log !== undefined && isRacy(context, log.stat));
  const check = context.isCheckDue(path);
  const result = await context.copier.copy({ dir, name, path, before, log, check });
  context.restAfter(path, result.tookMs);
  if (result.kind === "plain") return undefined;
  if (result.kind === "busy") return skipped(path, "busy_database", result.message);
  if (result.kind === "corrupt") {
    const last = context.index.get(path)?.entry;
    // Without a good one from before, a damaged one is better than none.
    if (last?.type !== "file" || last.sqlite !== true) return undefined;
    return skipped(path, "corrupt_database", result.message);
  }
  using copy = result.file;
  if (check) context.setChecked(path);
  const now = databaseStamp(stampOf(dir.lstat(name)) ?? "", logOf(dir, name)?.stamp);
  const again = now !== stamp;
  const opened = { path, open: copy, before, stamp };
  if (result.sizeBytes <= INLINE_BYTES) {
    const bytes = readStart(copy.fd, result.sizeBytes);
    const read = { sha256: sha256Of(bytes), length: bytes.length };
    const item = { ...fileItem(opened, read, { context, sqlite: true }), stamp, racy };
    return settle(item, context, { bytes, again });
  }
  const read = await hashOf(copy.fd, result.sizeBytes);
  const item = { ...fileItem(opened, read, { context, sqlite: true }), stamp, racy };
  return settle(item, context, { open: copy, again });
}

/** True if `place` is the log, journal or shared memory of a database beside it. */
function belongsToDatabase({ dir, name }: Place, context: ReadContext): boolean {
  const main = databaseOf(name);
  if (main === undefined) return false;
  const known = context.index.get(dir.pathOf(main))?.entry;
  // What SQLite itself refused to read is recorded as a plain file, whatever its header says.
  return known?.type === "file" ? known.sqlite === true : hasSqliteHeader(dir, main);
}

/** The reading of a path that looks as the index has it, so that it need not be read. */
function unchanged(path: string, stamp: string, context: ReadContext): Reading | undefined {
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
function settle(item: Fresh, context: ReadContext, sent: Sent = { again: false }): Reading {
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

function fileItem(
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

function unstable<T extends { readonly entry: FileEntry }>(item: T, is: boolean): T {
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

/** A time far ahead says nothing about when the file was written, so it is no reason to read it for ever. */
function isRacy({ clock }: ReadContext, stat: BigIntStats): boolean {
  const now = clock.now();
  return [stat.mtimeNs, stat.ctimeNs].some(
    (time) => Math.abs(now - Number(time / 1_000_000n)) < RACY_MS,
  );
}

function sha256Of(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function gone(path: string): Reading {
  return { kind: "gone", path };
}

function skipped(path: string, reason: SkipReason, message: string): Reading {
  return { kind: "skipped", path, reason, message };
}

function asSkipped(path: string, error: unknown): Reading {
  if (!isVolumeError(error)) throw error;
  if (error.kind === "bad_name") return skipped(path, "bad_name", error.message);
  if (error.kind === "failing") return skipped(path, "failing", error.message);
  return skipped(path, "unreadable", error.message);
}
