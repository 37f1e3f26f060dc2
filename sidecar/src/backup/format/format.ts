import { z } from "zod";

/**
 * The shapes that live in the store. docs/backup-format.md tells the same story for someone without this code.
 * Objects are loose: fields of a newer minor version survive being read and written again.
 */

/** The major version of everything below. A reader refuses a higher one. */
export const FORMAT = 1;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
/** Nanoseconds since the epoch as decimal digits: they do not fit into a JSON number. */
const nanoseconds = z.string().regex(/^-?\d{1,20}$/);

/**
 * A path below the volume: components with "/" between them, none of them empty, `.` or `..`. Checked wherever something is
 * read from the store, so that nothing in it can lead out of the volume.
 */
const volumePath = z
  .string()
  .refine((path) => !/^$|\0|(?:^|\/)(?:\.\.?)?(?:\/|$)/.test(path), "not a path below the volume");

/** Bytes that stand somewhere in the store: `length` bytes from `offset` of a blob, or of the member `member` of a commit's or checkpoint's tar. */
const extentSchema = z.union([
  z.looseObject({ blob: sha256, offset: z.int().min(0), length: z.int().min(0) }),
  z.looseObject({
    commit: z.int().min(1),
    member: z.string(),
    offset: z.int().min(0),
    length: z.int().min(0),
  }),
  z.looseObject({
    part: z.string(),
    member: z.string(),
    offset: z.int().min(0),
    length: z.int().min(0),
  }),
]);
export type Extent = z.infer<typeof extentSchema>;

/** What is at a path at one position of the history. */
export const entrySchema = z.discriminatedUnion("type", [
  z.looseObject({
    type: z.literal("file"),
    path: volumePath,
    /** Permission bits, without setuid, setgid and sticky. */
    mode: z.int().min(0).max(0o777),
    mtimeNs: nanoseconds,
    size: z.int().min(0),
    sha256,
    /** The content, in order. The lengths add up to `size`. Empty for an empty file. */
    extents: z.array(extentSchema),
    /** The first path (by the order of paths) of the same inode, where the file has more than one name. */
    hardlink: volumePath.optional(),
    /** True where the file changed while it was read: the bytes are those of the hash, but perhaps of no one moment. */
    unstable: z.boolean().optional(),
    /** True where the bytes were read through SQLite: a database, in one consistent state. */
    sqlite: z.boolean().optional(),
  }),
  z.looseObject({
    type: z.literal("directory"),
    path: volumePath,
    mode: z.int().min(0).max(0o7777),
    mtimeNs: nanoseconds,
  }),
  z.looseObject({
    type: z.literal("symlink"),
    path: volumePath,
    target: z.string(),
    mtimeNs: nanoseconds,
  }),
]);
export type Entry = z.infer<typeof entrySchema>;
export type FileEntry = Extract<Entry, { type: "file" }>;

/** What identifies a commit, and what `log` shows of it. */
const commitHeaderSchema = z.looseObject({
  format: z.int().min(1),
  position: z.int().min(1),
  /** Random, new for each attempt to write a position: tells our own commit from another machine's. */
  id: z.string().min(8),
  /** Id of the commit at `position - 1`; absent for the first. */
  parent: z.string().optional(),
  user: z.string(),
  machine: z.string(),
  /** Milliseconds since the epoch, strictly increasing along the history. A label, not an order. */
  time: z.int(),
  changed: z.int().min(0),
  /** Entries that went away, with all in the folders that `deleted` names. */
  deletedCount: z.int().min(0),
  /** Bytes of content that this commit brought into the store. */
  bytes: z.int().min(0),
});
export type CommitHeader = z.infer<typeof commitHeaderSchema>;

/** `.commit.json`, the first member of commits/NNNNNNNNNN.tar.zst. */
export const commitSchema = commitHeaderSchema.extend({
  entries: z.array(entrySchema),
  /** Paths that are no longer there; a folder stands for all that was in it. Applied before `entries`. */
  deleted: z.array(volumePath),
});
export type Commit = z.infer<typeof commitSchema>;

/** The first line of a checkpoint's manifest; each further line is one Entry, every folder before what it holds (by folder, then name, in the order of bytes). */
export const checkpointHeaderSchema = z.looseObject({
  format: z.int().min(1),
  position: z.int().min(1),
  /** Id of the commit at `position`. */
  id: z.string(),
  user: z.string(),
  machine: z.string(),
  time: z.int(),
  entryCount: z.int().min(0),
  /** Headers of the commits since the checkpoint before this one, oldest first. */
  commits: z.array(commitHeaderSchema),
});
export type CheckpointHeader = z.infer<typeof checkpointHeaderSchema>;

/** `pins/{name}`: a position that removal must keep. */
export const pinSchema = z.looseObject({
  format: z.int().min(1),
  position: z.int().min(0),
  /** Why, in a word. */
  reason: z.string(),
  user: z.string(),
  machine: z.string(),
  time: z.int(),
  /** Milliseconds since the epoch; for ever where it is absent. */
  until: z.int().optional(),
});
export type Pin = z.infer<typeof pinSchema>;

/** Names of objects below the user's `backup/` prefix. */
export const keys = {
  commits: "commits/",
  commit: (position: number): string => `commits/${padded(position)}.tar.zst`,
  blobs: "blobs/",
  blob: (hash: string): string => `blobs/${hash}`,
  checkpoints: "checkpoints/",
  manifest: (position: number): string => `checkpoints/${padded(position)}/manifest.json.zst`,
  pins: "pins/",
  pin: (name: string): string => `pins/${name}`,
  branches: "branches/",
  /** The prefix of a branch, below which the names are the same again. */
  branch: (name: string): string => `branches/${name}/`,
  probe: "probe/conditional-put",
} as const;

/** The position that a commit's or checkpoint's key speaks of; undefined for any other key. */
export function positionOf(key: string): number | undefined {
  const match = /^(?:commits\/(\d{10})\.tar\.zst|checkpoints\/(\d{10})\/manifest\.json\.zst)$/.exec(
    key,
  );
  return match ? Number(match[1] ?? match[2]) : undefined;
}

/** The key of the `n`th part, from 1, of the checkpoint at `position`. */
export function partKey(position: number, n: number): string {
  return `${keys.checkpoints}${padded(position)}/part-${String(n).padStart(4, "0")}.tar.zst`;
}

/** The object that an extent points into. */
export function objectOf(extent: Extent): string {
  if (typeof extent.blob === "string") return keys.blob(extent.blob);
  if (typeof extent.commit === "number") return keys.commit(extent.commit);
  return String(extent["part"]);
}

/** Where a member of a commit's tar keeps the content of `path`. */
export function memberName(path: string): string {
  return `data/${path}`;
}

/** Where a member of a commit's tar keeps what is new in the content of `path`. */
export function deltaName(path: string): string {
  return `delta/${path}`;
}

function padded(position: number): string {
  return String(position).padStart(10, "0");
}
