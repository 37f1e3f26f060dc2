import { dlopen, ptr, read } from "bun:ffi";

import type { Dir } from "./dir.ts";
import { volumeError } from "./volume-error.ts";

const AT_SYMLINK_NOFOLLOW = 0x100;
const UTIME_OMIT = (1n << 30n) - 2n;
const BILLION = 1_000_000_000n;
/** The few that utimensat and syncfs end in, by number on Linux. */
const ERRNO: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  5: "EIO",
  13: "EACCES",
  20: "ENOTDIR",
  22: "EINVAL",
  28: "ENOSPC",
  30: "EROFS",
  36: "ENAMETOOLONG",
  122: "EDQUOT",
};

/**
 * Sets when `name` in `dir` was last changed, in nanoseconds since the epoch: node's own functions take seconds as a
 * float, which cannot hold them. For files, folders and links (never followed). Throws VolumeError.
 */
export function setTimes(dir: Dir, name: string, mtimeNs: bigint): void {
  dir.at(name);
  const seconds = (mtimeNs - modulo(mtimeNs)) / BILLION;
  // Over a buffer made first: a typed array that makes its own later leaves the pointer stale.
  const times = new BigInt64Array(new ArrayBuffer(32));
  times.set([0n, UTIME_OMIT, seconds, modulo(mtimeNs)]);
  const path = Buffer.from(`${name}\0`);
  if (symbols().utimensat(dir.fd, ptr(path), ptr(times), AT_SYMLINK_NOFOLLOW) !== 0) {
    throw volumeError(lastError("utimensat"), "set the time of", dir.pathOf(name));
  }
}

/** Writes the whole file system that `fd` (a real descriptor, not O_PATH) is on to its disk. Blocks for as long as that takes. */
export function syncFileSystemNow(fd: number): void {
  if (symbols().syncfs(fd) !== 0) throw lastError("syncfs");
}

function modulo(ns: bigint): bigint {
  return ((ns % BILLION) + BILLION) % BILLION;
}

/** An error as node:fs would throw it. To be called right after the call that failed: the number is the thread's last one. */
function lastError(syscall: string): Error {
  // oxlint-disable-next-line no-underscore-dangle -- the C library's name
  const location = symbols().__errno_location();
  const errno = location === null ? 0 : read.i32(location);
  const code = ERRNO[errno] ?? `E${errno}`;
  return Object.assign(new Error(`${code}: ${syscall}`), { code, errno: -errno, syscall });
}

let loaded: ReturnType<typeof load> | undefined;

function symbols(): ReturnType<typeof load> {
  if (loaded) return loaded;
  let failure: unknown;
  for (const library of ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
    try {
      loaded = load(library);
      return loaded;
    } catch (error) {
      failure = error;
    }
  }
  throw new Error('Cannot open "libc": none of its known names loads', { cause: failure });
}

// oxlint-disable-next-line typescript/explicit-function-return-type -- the symbols' types follow from the table
function load(library: string) {
  return dlopen(library, {
    utimensat: { args: ["i32", "ptr", "ptr", "i32"], returns: "i32" },
    syncfs: { args: ["i32"], returns: "i32" },
    __errno_location: { args: [], returns: "ptr" },
  }).symbols;
}
