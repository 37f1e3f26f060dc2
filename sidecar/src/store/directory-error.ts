import { StoreError, type StoreErrorKind } from "./store.ts";

const BY_ERRNO: Readonly<Record<string, readonly [StoreErrorKind, string]>> = {
  ENOENT: ["missing", "there is no such object"],
  ENOTDIR: ["missing", "there is no such object"],
  ELOOP: ["missing", "it is a link, not an object"],
  ENXIO: ["missing", "it is no object"],
  EISDIR: ["unsupported", "a folder has this name"],
  EEXIST: ["unsupported", "a folder or another file is in the way"],
  ENOTEMPTY: ["unsupported", "a folder has this name"],
  ENAMETOOLONG: ["unsupported", "the path is too long for this file system"],
  EXDEV: ["unsupported", "part of the store's folder is on another file system"],
  EACCES: ["denied", "permission denied"],
  EPERM: ["denied", "not permitted"],
  EROFS: ["denied", "the file system is read-only"],
  ENOSPC: ["unavailable", "no space left on the disk of the store"],
  EDQUOT: ["unavailable", "the disk quota of the store is used up"],
};

/** Where a folder or file stands in the way of a put, there is nothing missing. */
const WHEN_PUTTING: Readonly<Record<string, readonly [StoreErrorKind, string]>> = {
  ENOTDIR: ["unsupported", "an object is where a folder is needed"],
};

export function errnoOf(error: unknown): string | undefined {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

/** A StoreError for an errno; every other error, such as a source's or a signal's, as it is. */
export function directoryError(error: unknown, verb: string, key: string): unknown {
  if (error instanceof StoreError) return error;
  const errno = errnoOf(error);
  if (errno === undefined || !(error instanceof Error) || !("syscall" in error)) return error;
  const known = (verb === "put" ? WHEN_PUTTING[errno] : undefined) ?? BY_ERRNO[errno];
  const [kind, found] = known ?? ["unavailable", `the disk answers ${errno}`];
  return new StoreError(kind, `Cannot ${verb} "${key}": ${found}`, { cause: error });
}
