import { statfs } from "node:fs/promises";

import { nextTurn, type Clock } from "../../platform/clock.ts";
import type { Dir } from "../../volume/dir.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import type { Entry, FileEntry } from "../format/format.ts";
import type { Contents } from "../history/contents.ts";
import type { StoreReads } from "../history/history.ts";
import type { IndexedEntry } from "../index.ts";
import { UNRESTORED, stampOf } from "../stamp.ts";
import { fetchFiles, type FailedFile, type LocalFiles } from "./fetch-files.ts";
import type { ProgressMeter } from "./progress.ts";
import { RestoreError } from "./restore-error.ts";
import { roomFor, type PlannedFile, type RestorePlan } from "./restore-plan.ts";
import { olderVersions, type OlderVersion } from "./salvage.ts";
import type { Staging } from "./staging.ts";

/** Left free beside the tree, for what the machine itself writes. */
const HEADROOM_BYTES = 16 * 1024 * 1024;
const HEADROOM_INODES = 100;
const ENTRIES_PER_TURN = 200;

export interface BuildOptions {
  /** What to build; asked once more where something vanished from the store meanwhile. */
  readonly plan: (
    again: boolean,
  ) => Promise<{ readonly plan: RestorePlan; readonly position: number }>;
  readonly staging: Staging;
  /** The folder that is staged in. */
  readonly base: Dir;
  readonly contents: Contents;
  readonly store: StoreReads;
  readonly clock: Clock;
  readonly meter: ProgressMeter;
  readonly local?: LocalFiles | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An entry of the history that could not be brought back. It stays in the history and in the index. */
export interface Unrestored {
  readonly path: string;
  readonly reason: string;
  /** Where an older version of it was put instead. */
  readonly substitute?: { readonly path: string; readonly position: number } | undefined;
}

export interface BuildResult {
  readonly position: number;
  readonly files: number;
  readonly bytes: number;
  /** Every entry of the tree, with how it looks on the disk. */
  readonly items: readonly IndexedEntry[];
  readonly unrestored: readonly Unrestored[];
}

/** Builds a whole tree in the staging folder, as far as the store has it. Throws RestoreError `no_room`, StoreError, VolumeError. */
export async function buildTree(options: BuildOptions): Promise<BuildResult> {
  const { staging, signal } = options;
  let { plan, position } = await options.plan(false);
  let failed = await fetchAll(plan, options);
  if (failed.some(({ reason }) => reason === "missing")) {
    ({ plan, position } = await options.plan(true));
    failed = await fetchAll(plan, options);
  }
  for (const { path } of plan.directories) staging.makeDirectory(path);
  const lost = new Map<string, string>(
    plan.refused.map(({ entry, reason }) => [entry.path, reason]),
  );
  for (const { file, reason } of failed) {
    for (const { path } of namesOf(file)) lost.set(path, `its content is ${reason}`);
  }
  const substitutes = await substitute(failed, { ...options, position });
  const items = await finish(plan, { staging, lost, signal });
  const unrestored = [...lost].map(([path, reason]) => ({
    path,
    reason,
    substitute: substitutes.get(path),
  }));
  return { position, files: plan.files.length, bytes: plan.bytes, items, unrestored };
}

async function fetchAll(plan: RestorePlan, options: BuildOptions): Promise<FailedFile[]> {
  const { staging, signal, meter, local } = options;
  const left = await staging.prepare(plan, signal);
  const toFetch = plan.files.filter(
    ({ entry }) => !left.has(entry.path) && local?.has(entry) !== true,
  );
  await checkRoom(options.base, {
    sizes: toFetch.map(({ entry }) => entry.size),
    others: plan.directories.length + plan.implied.length + plan.symlinks.length,
  });
  meter.start({ files: plan.files.length, bytes: plan.bytes });
  const onDone = ({ entry }: PlannedFile): void => meter.add(entry.size);
  const failed = await fetchFiles(plan.files, { ...options, left, onDone });
  meter.tell();
  return failed;
}

async function checkRoom(
  base: Dir,
  wanted: { readonly sizes: readonly number[]; readonly others: number },
): Promise<void> {
  const { bsize, bavail, files, ffree } = await statfs(base.self);
  const room = roomFor(wanted.sizes, wanted.others);
  const bytes = room.bytes + HEADROOM_BYTES - bavail * bsize;
  // A file system that does not count inodes says 0 of 0.
  const inodes = files === 0 ? 0 : room.inodes + HEADROOM_INODES - ffree;
  if (bytes <= 0 && inodes <= 0) return;
  const lacks = [
    ...(bytes > 0 ? [`${Math.ceil(bytes / 1024 / 1024)} MiB`] : []),
    ...(inodes > 0 ? [`${inodes} inodes`] : []),
  ];
  throw new RestoreError(
    "no_room",
    `Cannot restore to the volume: it lacks ${lacks.join(" and ")}; extend it`,
  );
}

/** Puts the newest good version of each failed file where it is of use. By path of the failed one. */
async function substitute(
  failed: readonly FailedFile[],
  { staging, contents, store, signal, position }: BuildOptions & { readonly position: number },
): Promise<ReadonlyMap<string, { readonly path: string; readonly position: number }>> {
  const found = new Map<string, { path: string; position: number }>();
  if (failed.length === 0) return found;
  const entries = failed.map(({ file }) => file.entry);
  for await (const version of olderVersions(store, entries, { position, signal })) {
    const { path } = version.entry;
    if (found.has(path)) continue;
    const target = substitutePath(version);
    if (staging.has(target)) continue;
    try {
      const entry = { ...version.entry, path: target };
      if (!(await staging.write(entry, contents.read(version.entry)))) continue;
    } catch (error) {
      signal?.throwIfAborted();
      // As bad as the newer one; the next older one may do.
      if (isVolumeError(error, "failing", "no_space")) throw error;
      continue;
    }
    found.set(path, { path: target, position: version.position });
    if (found.size === failed.length) break;
  }
  return found;
}

/** A database of the gateway is put in its place, for it would start an empty one; anything else beside it. */
function substitutePath({ entry: { path, sqlite }, position }: OlderVersion): string {
  if (sqlite === true && path.startsWith("openclaw/")) return path;
  const suffix = `.restored-${position}`;
  const slash = path.lastIndexOf("/") + 1;
  let name = path.slice(slash);
  while (Buffer.byteLength(name + suffix) > 255 || !name.isWellFormed()) name = name.slice(0, -1);
  return path.slice(0, slash) + name + suffix;
}

/** Links, folders' bits and times; what has no content. Returns the tree as the index is to have it. */
async function finish(
  plan: RestorePlan,
  options: {
    readonly staging: Staging;
    readonly lost: Map<string, string>;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<IndexedEntry[]> {
  const { staging, lost, signal } = options;
  const items: IndexedEntry[] = [];
  let done = 0;
  const pause = async (): Promise<void> => {
    done += 1;
    if (done % ENTRIES_PER_TURN !== 0) return;
    signal?.throwIfAborted();
    await nextTurn();
  };
  const add = (entry: Entry, inode?: string, blocks?: Uint8Array): void => {
    const gone = lost.has(entry.path);
    const stamp = gone ? UNRESTORED : (stampOf(staging.lstat(entry.path)) ?? "");
    const known = { ...(inode === undefined ? {} : { inode }), ...(blocks ? { blocks } : {}) };
    items.push({ entry, stamp, racy: false, ...known });
  };
  for (const { entry } of plan.refused) add(entry);
  for (const file of plan.files) {
    if (!lost.has(file.entry.path)) {
      for (const link of file.links) staging.link(link, file.entry.path);
    }
    const inode = file.links.length > 0 ? inodeOf(file, options) : undefined;
    const blocks = staging.blocksOf(file.entry.path);
    for (const name of namesOf(file)) add(name, inode, blocks);
    await pause();
  }
  for (const entry of plan.symlinks) {
    try {
      staging.symlink(entry);
    } catch (error) {
      if (!isVolumeError(error, "bad_name", "missing")) throw error;
      lost.set(entry.path, "its target is not possible");
    }
    add(entry);
    await pause();
  }
  // Children before their parents: nothing may change in a folder whose time is set.
  for (const path of plan.implied.toReversed()) staging.finishDirectory(path);
  for (const entry of plan.directories.toReversed()) {
    staging.finishDirectory(entry.path, entry);
    add(entry);
    await pause();
  }
  return items;
}

function inodeOf(
  file: PlannedFile,
  { staging, lost }: { readonly staging: Staging; readonly lost: ReadonlyMap<string, string> },
): string | undefined {
  if (lost.has(file.entry.path)) return undefined;
  const { dev, ino } = staging.lstat(file.entry.path);
  return `${dev}:${ino}`;
}

function namesOf({ entry, links }: PlannedFile): FileEntry[] {
  return [entry, ...links];
}
