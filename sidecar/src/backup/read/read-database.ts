import type { BigIntStats } from "node:fs";

import type { Place } from "../../volume/root.ts";
import { hasSqliteHeader, logOf } from "../notice/sqlite-file.ts";
import { databaseOf, databaseStamp, stampOf } from "../stamp.ts";
import { readContent, readStart } from "./content.ts";
import { baseOf } from "./delta.ts";
import type { ReadContext } from "./read-context.ts";
import { INLINE_BYTES, type Reading } from "./reading.ts";
import { fileItem, isRacy, isRecent, settle, sha256Of, skipped, unchanged } from "./settle.ts";

/** Reads a database through SQLite. Undefined where it is none, whatever its header says, or nothing but its bytes is left to save. */
export async function readDatabase(
  place: Place,
  before: BigIntStats,
  context: ReadContext,
): Promise<Reading | undefined> {
  const { dir, name, path } = place;
  const log = logOf(dir, name);
  const stamp = databaseStamp(stampOf(before) ?? "", log?.stamp);
  const known = unchanged(path, stamp, context);
  if (known) return known;
  const racy =
    isRacy(context, before) || (log !== undefined && isRecent(context, log.stat.mtimeNs));
  const check = context.isCheckDue(path);
  const result = await context.copier.copy({ dir, name, path, before, log, check });
  context.restAfter(path, result.tookMs);
  if (result.kind === "busy") {
    // What a check alone made too slow is taken without one the next time.
    if (check) context.setChecked(path);
    return skipped(path, "busy_database", result.message);
  }
  if (result.kind !== "copied") {
    const last = context.index.get(path)?.entry;
    // Without a good one from before, a damaged one is better than none.
    if (last?.type !== "file" || last.sqlite !== true) return undefined;
    return skipped(path, "corrupt_database", result.message);
  }
  using copy = result.file;
  if (check) context.setChecked(path, result.sizeBytes);
  const now = databaseStamp(stampOf(dir.lstat(name)) ?? "", logOf(dir, name)?.stamp);
  const again = now !== stamp;
  const opened = { path, open: copy, before, stamp };
  if (result.sizeBytes <= INLINE_BYTES) {
    const bytes = readStart(copy.fd, result.sizeBytes);
    const read = { sha256: sha256Of(bytes), length: bytes.length };
    const item = { ...fileItem(opened, read, { context, sqlite: true }), stamp, racy };
    return settle(item, context, { bytes, again });
  }
  const start = context.clock.monotonic();
  const base = baseOf(context.index.get(path));
  const read = await readContent(copy.fd, { size: result.sizeBytes, base });
  context.restAfter(path, result.tookMs + context.clock.monotonic() - start);
  const item = { ...fileItem(opened, read, { context, sqlite: true }), stamp, racy };
  return settle(item, context, { open: copy, delta: read.delta, again });
}

/** True if `place` is the log, journal or shared memory of a database beside it. */
export function belongsToDatabase({ dir, name }: Place, context: ReadContext): boolean {
  const main = databaseOf(name);
  if (main === undefined) return false;
  const known = context.index.get(dir.pathOf(main))?.entry;
  // What SQLite itself refused to read is recorded as a plain file, whatever its header says.
  return known?.type === "file" ? known.sqlite === true : hasSqliteHeader(dir, main);
}
