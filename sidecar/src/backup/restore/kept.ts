import { closeSync, readFileSync } from "node:fs";

import { z } from "zod";

import { nextTurn } from "../../platform/clock.ts";
import { writeFileAtomic } from "../../volume/atomic.ts";
import type { Owner } from "../../volume/dir.ts";
import { OWN_FOLDER, isOurs } from "../../volume/marker.ts";
import { setTimes } from "../../volume/ns-times.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import type { Index } from "../index.ts";
import { databaseOf } from "../stamp.ts";
import { STAGING_FOLDER } from "./place.ts";

const NAME = `${STAGING_FOLDER}/kept.json`;
const NAMES_PER_TURN = 500;

const keptSchema = z.array(z.string());

/**
 * The paths on the volume that the index does not know, each as far up as possible: what is never backed up, and must
 * survive an older tree's being replaced by a newer one.
 */
export async function findUnknown(
  root: Root,
  index: Pick<Index, "children">,
  signal?: AbortSignal,
): Promise<string[]> {
  const unknown: string[] = [];
  let seen = 0;
  const look = async (path: string): Promise<void> => {
    using dir = root.dir(path, { links: "refuse" });
    const known = new Map(index.children(path).map((child) => [child.name, child]));
    for (const name of dir.names()) {
      if (path === "" && isOurs(name)) continue;
      signal?.throwIfAborted();
      seen += 1;
      if (seen % NAMES_PER_TURN === 0) await nextTurn();
      // The log of a database that the history has is part of it, and would undo the newer one.
      if (known.get(databaseOf(name) ?? "")?.sqlite === true) continue;
      if (!known.has(name)) unknown.push(dir.pathOf(name));
      else if (known.get(name)?.type === "directory" && dir.lstat(name).isDirectory()) {
        await look(dir.pathOf(name));
      }
    }
  };
  await look("");
  return unknown;
}

/**
 * Moves these paths back from where they were put aside, where nothing has their name. A folder that the newer tree does
 * not have is made again. Returns false where something had to stay aside: it is nowhere else.
 */
export function bringBack(
  root: Root,
  paths: readonly string[],
  { replaced, owner }: { readonly replaced: string; readonly owner?: Owner | undefined },
): boolean {
  let all = true;
  const back = new Set<string>();
  // A database before its log, which comes after it in the alphabet.
  for (const path of paths.toSorted()) {
    try {
      const main = databaseOf(path);
      // Beside another database it would be taken for that one's.
      const isAlone = main !== undefined && !back.has(main);
      if (bringOneBack(root, path, { replaced, owner, isAlone })) back.add(path);
      else all = false;
    } catch (error) {
      // Nothing was put aside there, or not any more.
      if (isVolumeError(error, "missing")) continue;
      // Its folder is no folder in the newer tree.
      if (!isVolumeError(error, "not_directory", "outside_root", "bad_name")) throw error;
      all = false;
    }
  }
  return all;
}

function bringOneBack(
  root: Root,
  path: string,
  options: {
    readonly replaced: string;
    readonly owner: Owner | undefined;
    /** The log of a database that was not brought back. */
    readonly isAlone: boolean;
  },
): boolean {
  const { replaced, owner, isAlone } = options;
  using from = root.place(`${OWN_FOLDER}/${replaced}/${path}`, { links: "refuse" });
  // A name that is not UTF-8 cannot be asked for. Any other was moved before, by a run that was cut off.
  if (!from.dir.has(from.name)) return !from.name.includes("\uFFFD");
  using to = root.place(path, { links: "refuse", create: { owner } });
  if (to.dir.has(to.name)) return false;
  if (isAlone && to.dir.has(databaseOf(to.name) ?? "")) return false;
  const { mtimeNs } = to.dir.stat();
  from.dir.rename(from.name, to.dir, to.name);
  if (to.dir.path === "") return true;
  // To the history nothing happened in this folder.
  using folder = root.place(to.dir.path, { links: "refuse" });
  setTimes(folder.dir, folder.name, mtimeNs);
  return true;
}

/** Remembers, for as long as the restore takes, the paths that are to be brought back. */
export async function writeKept(root: Root, paths: readonly string[]): Promise<void> {
  using place = root.place(NAME, { links: "refuse", create: { mode: 0o700 } });
  await writeFileAtomic(place, Buffer.from(JSON.stringify(paths)), { mode: 0o600 });
}

/** What `writeKept` remembered; undefined where it did not come to that. */
export function readKept(root: Root): readonly string[] | undefined {
  try {
    using place = root.place(NAME, { links: "refuse" });
    const fd = place.dir.openFile(place.name);
    try {
      return keptSchema.parse(JSON.parse(readFileSync(fd, "utf8")));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isVolumeError(error, "missing")) return undefined;
    throw error;
  }
}
