import {
  chmodSync,
  chownSync,
  closeSync,
  fstatSync,
  fsyncSync,
  readSync,
  writeSync,
} from "node:fs";

import { z } from "zod";

import type { Dir } from "./dir.ts";
import type { Root } from "./root.ts";
import { isVolumeError } from "./volume-error.ts";

/** The folder on the volume that is the sidecar's alone. */
export const OWN_FOLDER = ".sidecar";

/** The version of the marker that this code writes. */
const VERSION = 1;
const NAME = "volume.json";
const TEMPORARY = "volume.json.new";
/** A marker is some hundred bytes; what is larger is not one. */
const MAX_BYTES = 256 * 1024;

/** How far bringing a tree back to this volume has come. */
const restoreSchema = z.looseObject({
  /** `staging`: fetching into the staging folder. `placing`: all is staged and durable, and is being moved into place. */
  phase: z.enum(["staging", "placing"]),
  /** Whether an empty or damaged volume is filled, or an older copy brought up to date. */
  kind: z.enum(["whole", "forward"]),
  /** The folder below ours that takes what was in the way. */
  replaced: z.string().regex(/^replaced-[0-9]+$/),
  /** While placing: all names at the top of the new tree. */
  names: z.array(z.string()).optional(),
});

const markerSchema = z.looseObject({
  version: z.int().min(1),
  user: z.string(),
  /** `restoring`: the tree is not whole, nothing of it may be committed. */
  state: z.enum(["restoring", "ready"]),
  /** The position of the history that the tree stands at (or is being brought to); 0 before the first commit. */
  position: z.int().min(0),
  /** A new machine whose first files have still to be put there. */
  fresh: z.boolean().optional(),
  restore: restoreSchema.optional(),
});

/** Whose volume this is and how far its tree is whole. Fields of a newer minor version survive being written again. */
export type Marker = z.infer<typeof markerSchema>;

export type MarkerReading =
  | { readonly kind: "missing" }
  | { readonly kind: "ok"; readonly marker: Marker }
  /** Something is there that cannot be understood: never a new machine. */
  | { readonly kind: "damaged"; readonly message: string }
  | { readonly kind: "newer"; readonly message: string };

/**
 * Reads `.sidecar/volume.json`; `root` must have no private folders. No link is followed. Throws VolumeError where the
 * disk itself refuses (`failing`, `denied`).
 */
export function readMarker(root: Root): MarkerReading {
  let text: string;
  try {
    using dir = root.dir(OWN_FOLDER, { links: "refuse" });
    text = readText(dir);
  } catch (error) {
    if (isVolumeError(error, "missing")) return { kind: "missing" };
    if (isVolumeError(error, "failing", "denied", "no_space") || !(error instanceof Error)) {
      throw error;
    }
    return damaged(error.message);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return damaged("it is not JSON");
  }
  const { version } = (value ?? {}) as { version?: unknown };
  if (typeof version === "number" && version > VERSION) {
    return {
      kind: "newer",
      message: `Cannot use the volume: its marker is version ${version}, this sidecar knows ${VERSION}; start the newer image again`,
    };
  }
  const parsed = markerSchema.safeParse(value);
  if (parsed.success) return { kind: "ok", marker: parsed.data };
  const fault = parsed.error.issues[0];
  return damaged(`"${fault?.path.join(".") ?? ""}": ${fault?.message ?? "not understood"}`);
}

/** Replaces the marker, atomically and durably, making `.sidecar` (0700) where it is missing. Throws VolumeError. */
export function writeMarker(root: Root, marker: Omit<Marker, "version">): void {
  using top = root.dir("", { links: "refuse" });
  using dir = root.dir(OWN_FOLDER, { links: "refuse", create: { mode: 0o700 } });
  claim(dir);
  top.sync();
  try {
    dir.unlink(TEMPORARY);
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
  const fd = dir.create(TEMPORARY, 0o600);
  try {
    writeSync(fd, `${JSON.stringify({ ...marker, version: VERSION })}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  dir.rename(TEMPORARY, dir, NAME);
  dir.sync();
}

/** Changes some fields of a marker that is there; `undefined` removes one. Throws where there is none. */
export function updateMarker(root: Root, changes: Partial<Omit<Marker, "version">>): void {
  const reading = readMarker(root);
  if (reading.kind === "missing") throw new Error("Cannot change the marker: there is none");
  if (reading.kind !== "ok") throw new Error(reading.message);
  writeMarker(root, { ...reading.marker, ...changes });
}

/** Why nothing may be committed from this volume as `user`; undefined where its marker says that it is whole and theirs. */
export function whyNotReady(root: Root, user: string): string | undefined {
  const reading = readMarker(root);
  if (reading.kind === "missing") return "the volume has no marker any more";
  if (reading.kind !== "ok") return reading.message;
  if (reading.marker.user !== user) return `the volume belongs to user "${reading.marker.user}"`;
  return reading.marker.state === "ready" ? undefined : "a restore is not finished";
}

/** True if anything is on the volume but what a fresh disk or the sidecar itself puts there. */
export function holdsFiles(root: Root): boolean {
  using top = root.dir("", { links: "refuse" });
  return top.names().some((name) => !isOurs(name));
}

/** True for the names at the top of the volume that belong to no user: a restore neither brings nor moves them. */
export function isOurs(name: string): boolean {
  return (
    name === OWN_FOLDER ||
    // Half-written files, and folders of ours that others must be able to enter.
    name.startsWith(`${OWN_FOLDER}-`) ||
    name === "lost+found" ||
    name === ".last-sync"
  );
}

/** On an older volume somebody else may have made a folder of this name. */
function claim(dir: Dir): void {
  const { uid, mode } = dir.stat();
  const self = process.geteuid?.() ?? 0;
  if (Number(uid) !== self) chownSync(dir.self, self, process.getegid?.() ?? 0);
  if ((Number(mode) & 0o7777) !== 0o700) chmodSync(dir.self, 0o700);
}

function readText(dir: Dir): string {
  const fd = dir.openFile(NAME);
  try {
    const size = Number(fstatSync(fd, { bigint: true }).size);
    if (size > MAX_BYTES) throw new Error(`it has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    const read = readSync(fd, bytes, 0, size, 0);
    return bytes.toString("utf8", 0, read);
  } finally {
    closeSync(fd);
  }
}

function damaged(found: string): MarkerReading {
  return {
    kind: "damaged",
    message: `Cannot read the volume's marker "${OWN_FOLDER}/${NAME}": ${found}; repair it or put {"version":1,"user":"…","state":"ready","position":0} there if the tree is known to be whole, or empty the volume to restore it from the backup`,
  };
}
