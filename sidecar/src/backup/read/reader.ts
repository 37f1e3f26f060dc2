import { readlinkSync } from "node:fs";

import type { Place } from "../../volume/root.ts";
import { isVolumeError, volumeError } from "../../volume/volume-error.ts";
import type { Entry } from "../format/format.ts";
import { isSqliteHeader } from "../notice/sqlite-file.ts";
import { stampOf } from "../stamp.ts";
import { readContent, readStart } from "./content.ts";
import { baseOf } from "./delta.ts";
import { OpenFile } from "./open-file.ts";
import type { ReadContext, ReadPlace } from "./read-context.ts";
import { belongsToDatabase, readDatabase } from "./read-database.ts";
import { INLINE_BYTES, type Reading } from "./reading.ts";
import {
  fileItem,
  isRacy,
  settle,
  sha256Of,
  skipped,
  unchanged,
  unstable,
  type Opened,
} from "./settle.ts";

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
    const reading = await context.asDatabase(path, () => readDatabase(place, before, context));
    if (reading) return reading;
  }
  const stamp = stampOf(before) ?? "";
  // Awaited here, because the file is closed with this scope.
  return (
    unchanged(path, stamp, context) ?? (await readPlain({ path, open, before, stamp }, context))
  );
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
  const base = baseOf(context.index.get(path));
  const isRestless = context.isRestless(path) && context.hasRoom(size);
  // Of a restless file little may be new, which needs no second look at it.
  if (isRestless && !base) return readCopy(opened, context);
  const read = await readContent(open.fd, { size, base });
  const { delta } = read;
  const after = open.stat();
  const again = stampOf(after) !== stamp;
  if (!delta?.fresh.bytes) {
    // What only grew still starts with what was hashed. Anything else may never read the same again.
    const grew = after.size > before.size && read.length === size;
    if (isRestless || (again && !grew && context.hasRoom(size))) return readCopy(opened, context);
  }
  const item = unstable({ ...fileItem(opened, read, { context }), stamp, racy }, again);
  const onChanged = (): void => context.setRestless(path, true);
  return settle(item, context, { open, delta, again, onChanged });
}

/** Reads a file that never rests by way of a private copy, which is what is hashed and sent. */
async function readCopy(opened: Opened, context: ReadContext): Promise<Reading> {
  const { path, open, before, stamp } = opened;
  const racy = isRacy(context, before);
  using copy = new OpenFile(context.createStaging(Number(before.size)));
  const read = await readContent(open.fd, {
    size: Number(before.size),
    base: baseOf(context.index.get(path)),
    each: (chunk) => copy.write(chunk),
  });
  const again = stampOf(open.stat()) !== stamp;
  context.setRestless(path, again);
  const item = unstable({ ...fileItem(opened, read, { context }), stamp, racy }, again);
  return settle(item, context, { open: copy, delta: read.delta, again });
}

function gone(path: string): Reading {
  return { kind: "gone", path };
}

function asSkipped(path: string, error: unknown): Reading {
  if (!isVolumeError(error)) throw error;
  if (error.kind === "bad_name") return skipped(path, "bad_name", error.message);
  if (error.kind === "failing") return skipped(path, "failing", error.message);
  return skipped(path, "unreadable", error.message);
}
