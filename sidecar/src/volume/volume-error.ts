export type VolumeErrorKind =
  /** No such file or folder. */
  | "missing"
  /** Something is there already. */
  | "exists"
  /** A folder was needed and something else is there. */
  | "not_directory"
  /** A file was needed and a folder is there. */
  | "is_directory"
  /** A folder that must be empty is not. */
  | "not_empty"
  /** A device, socket or FIFO. */
  | "special"
  /** The path, or a link on its way, leads out of the root. */
  | "outside_root"
  /** The path is the sidecar's own or listed as private. */
  | "private"
  /** Not a name a file can have: empty, `.`, `..`, NUL, or over 255 bytes; or a path that is too long. */
  | "bad_name"
  /** More bytes than the caller takes. */
  | "too_large"
  /** The kernel refuses: permissions, a read-only file, or a lease on it. */
  | "denied"
  /** No space, no inode or no quota left. */
  | "no_space"
  /** The disk itself fails: EIO, or remounted read-only. */
  | "failing";

/** What an access under the volume can end in. Callers act on `kind`. */
export class VolumeError extends Error {
  readonly kind: VolumeErrorKind;

  constructor(kind: VolumeErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "VolumeError";
    this.kind = kind;
  }
}

/** True if `error` is a volume's error of one of `kinds` (of any, where none is given). */
export function isVolumeError(
  error: unknown,
  ...kinds: readonly VolumeErrorKind[]
): error is VolumeError {
  return error instanceof VolumeError && (kinds.length === 0 || kinds.includes(error.kind));
}

/** True where the process, or the machine, has no descriptors left: that says nothing about what was to be opened. */
export function isOutOfDescriptors(error: unknown): boolean {
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return code === "EMFILE" || code === "ENFILE";
}

const BY_ERRNO: Readonly<Record<string, readonly [VolumeErrorKind, string]>> = {
  ENOENT: ["missing", "no such file or folder"],
  EEXIST: ["exists", "it exists already"],
  ENOTDIR: ["not_directory", "not a folder"],
  EISDIR: ["is_directory", "it is a folder"],
  ENOTEMPTY: ["not_empty", "the folder is not empty"],
  ENXIO: ["special", "not a regular file or folder"],
  ELOOP: ["outside_root", "too many links, or a link where none is allowed"],
  EXDEV: ["outside_root", "it is on another file system"],
  ENAMETOOLONG: ["bad_name", "the name is too long"],
  EINVAL: ["bad_name", "the name or target is not possible"],
  EACCES: ["denied", "permission denied"],
  EPERM: ["denied", "not permitted"],
  ETXTBSY: ["denied", "it is being executed"],
  EBUSY: ["denied", "it is in use"],
  // A lease of its owner's: we never wait until it is given up.
  EAGAIN: ["denied", "its owner keeps it from being opened"],
  ENOSPC: ["no_space", "no space left on the volume"],
  EDQUOT: ["no_space", "the quota is used up"],
  EIO: ["failing", "the disk reports an input/output error"],
  EROFS: ["failing", "the volume is read-only"],
};

/**
 * `Cannot <verb> "<path>": <what was found>` as a VolumeError, from an errno.
 * Returns the error itself where it is a VolumeError already or carries no errno we know.
 */
export function volumeError(error: unknown, verb: string, path: string): unknown {
  if (error instanceof VolumeError) return error;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  const known = code === undefined ? undefined : BY_ERRNO[code];
  if (!known) return error;
  return new VolumeError(known[0], `Cannot ${verb} "${path}": ${known[1]}`, { cause: error });
}
