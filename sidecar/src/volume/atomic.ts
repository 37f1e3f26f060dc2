import { randomBytes } from "node:crypto";
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsync,
  write,
  type BigIntStats,
} from "node:fs";
import { promisify } from "node:util";

import type { Dir, Owner } from "./dir.ts";
import { setTimes } from "./ns-times.ts";
import { VolumeError, isVolumeError, volumeError } from "./volume-error.ts";

/** How every half-written file is called, beside its target. One that a kill left behind is rubbish: no backup, no listing. */
export const TEMP_PREFIX = ".sidecar-tmp-";

/** Exactly the names that `tempName` gives: what looks like one otherwise is somebody else's. */
export const TEMP_NAME = /^\.sidecar-tmp-[0-9a-f]{24}$/;

/** A name for a file or folder that is not finished yet. */
export function tempName(): string {
  return TEMP_PREFIX + randomBytes(12).toString("hex");
}

export interface WriteOptions {
  /** Permission bits, 0o644 by default. setuid, setgid and sticky are never set. */
  readonly mode?: number;
  readonly owner?: Owner | undefined;
  /** Whether the owner and the bits of a regular file that is replaced win over `mode` and `owner`. Default true. */
  readonly keep?: boolean;
  /** Nanoseconds since the epoch; now by default. */
  readonly mtimeNs?: bigint;
  /** Fails with `too_large` past so many bytes. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Gives the name `name` in `dir` to a new file with `content`; resolves with its size when it is durable. Whoever opens
 * the name meanwhile, or after a crash, gets all of the old file or all of the new one. On any failure (the source
 * throws, the signal aborts, no space) the old file is untouched and nothing is left. A link at `name` is replaced,
 * never followed; folders and special files are refused before the content is read. Throws VolumeError, or what the
 * source threw.
 */
export async function writeFileAtomic(
  { dir, name }: { readonly dir: Dir; readonly name: string },
  content: Uint8Array | AsyncIterable<Uint8Array>,
  options: WriteOptions = {},
): Promise<number> {
  const path = dir.pathOf(name);
  const { signal } = options;
  signal?.throwIfAborted();
  const before = replaced(dir, name);
  const temp = tempName();
  const fd = dir.create(temp, 0o600);
  try {
    const chunks = content instanceof Uint8Array ? [content] : abortable(content, signal);
    const sizeBytes = await writeAll(fd, chunks, { path, ...options });
    dress(fd, before, options);
    if (options.mtimeNs !== undefined) setTimes(dir, temp, options.mtimeNs);
    await fsyncLater(fd);
    signal?.throwIfAborted();
    dir.rename(temp, dir, name);
    await dir.flush();
    return sizeBytes;
  } catch (error) {
    discard(dir, temp);
    throw isVolumeError(error, "missing")
      ? new VolumeError("missing", `Cannot write "${path}": its folder is gone`, { cause: error })
      : volumeError(error, "write", path);
  } finally {
    closeSync(fd);
  }
}

const fsyncLater = promisify(fsync);
const writeLater = promisify(write);

/** The regular file that has the name, undefined where there is none or a link. */
function replaced(dir: Dir, name: string): BigIntStats | undefined {
  let stat: BigIntStats;
  try {
    stat = dir.lstat(name);
  } catch (error) {
    if (isVolumeError(error, "missing")) return undefined;
    throw error;
  }
  const path = dir.pathOf(name);
  if (stat.isDirectory()) {
    throw new VolumeError("is_directory", `Cannot write "${path}": it is a folder`);
  }
  if (stat.isFile()) return stat;
  if (stat.isSymbolicLink()) return undefined;
  throw new VolumeError("special", `Cannot write "${path}": not a regular file`);
}

async function writeAll(
  fd: number,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: { readonly path: string; readonly maxBytes?: number },
): Promise<number> {
  const { path, maxBytes = Number.POSITIVE_INFINITY } = options;
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.byteLength;
    if (size > maxBytes) {
      throw new VolumeError("too_large", `Cannot write "${path}": more than ${maxBytes} bytes`);
    }
    for (let done = 0; done < chunk.byteLength;) {
      const { bytesWritten } = await writeLater(fd, chunk, done, chunk.byteLength - done, null);
      done += bytesWritten;
    }
  }
  return size;
}

/** Owner first: a change of owner takes permission bits away. */
function dress(fd: number, before: BigIntStats | undefined, options: WriteOptions): void {
  const kept = options.keep === false ? undefined : before;
  const owner = kept ? { uid: Number(kept.uid), gid: Number(kept.gid) } : options.owner;
  const now = fstatSync(fd);
  if (owner && (owner.uid !== now.uid || owner.gid !== now.gid)) {
    fchownSync(fd, owner.uid, owner.gid);
  }
  fchmodSync(fd, (kept ? Number(kept.mode) : (options.mode ?? 0o644)) & 0o777);
}

function discard(dir: Dir, temp: string): void {
  try {
    dir.unlink(temp);
  } catch {
    // Renamed already, or taken away by somebody else: the failure that led here is the one to tell.
  }
}

/** The same chunks, without waiting for a source that stays silent after the signal aborts. */
async function* abortable(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  if (!signal) {
    yield* source;
    return;
  }
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  const onAbort = (): void => aborted.reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  const iterator = source[Symbol.asyncIterator]();
  let open = true;
  try {
    for (;;) {
      const pull = iterator.next();
      // Without the chunk: a promise that lasts keeps what every race came to, here a whole file.
      await Promise.race([pull.then(() => undefined), aborted.promise]);
      const next = await pull;
      if (next.done === true) {
        open = false;
        return;
      }
      yield next.value;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    // Not awaited: it may wait for the very chunk that never comes.
    if (open) void iterator.return?.()?.then(undefined, () => {});
  }
}
