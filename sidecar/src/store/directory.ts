import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import {
  link,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  unlink,
  type FileHandle,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { systemClock, type Clock } from "../platform/clock.ts";
import { exactly, type ReadOptions } from "./body.ts";
import { directoryError, errnoOf } from "./directory-error.ts";
import { keysInOrder } from "./directory-walk.ts";
import { checkKey, checkRange, pageSize } from "./key.ts";
import {
  StoreError,
  type AbortUploadsOptions,
  type Body,
  type GetOptions,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type PutOptions,
  type SignalOption,
  type Store,
} from "./store.ts";

/** Holds what is being written. No key can name it: keys have no `~`. */
const UNFINISHED = "~unfinished";
/** Leftovers of a put that was killed are removed at this age, far above what a put takes. */
const LEFTOVER_MS = 24 * 3_600_000;
const CHUNK_BYTES = 1 << 20;
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = constants;

/**
 * A store in a folder of a local disk: an object is a file, the slashes of its key are folders. An object appears under
 * its key whole and already on the disk, or not at all, also when several processes share the folder.
 */
export class DirectoryStore implements Store {
  readonly name: string;
  readonly #path: string;
  readonly #clock: Clock;
  /** Folders whose own name is known to be on the disk. */
  readonly #durable = new Set<string>();
  #sweptAt: number | undefined;

  /** The folder is made by the first put. */
  constructor(path: string, options: { readonly clock?: Clock | undefined } = {}) {
    this.name = `file://${path}`;
    this.#path = resolve(path);
    this.#clock = options.clock ?? systemClock;
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<void> {
    checkKey(key);
    const { ifAbsent = false, signal } = options;
    signal?.throwIfAborted();
    await this.#checkFolder();
    const unfinished = join(this.#path, UNFINISHED);
    const temporary = join(unfinished, randomUUID());
    try {
      await onDisk(key, async () => {
        await mkdir(unfinished, { recursive: true, mode: 0o700 });
        await this.#sweep(unfinished);
      });
      await writeDurably(temporary, body, { key, signal });
      signal?.throwIfAborted();
      await onDisk(key, () => this.#publish(temporary, key, ifAbsent));
    } finally {
      await unlink(temporary).catch(() => undefined);
    }
  }

  async get(key: string, options: GetOptions = {}): Promise<Uint8Array> {
    const { signal } = options;
    try {
      await using file = await this.#open(key, options);
      const bytes = new Uint8Array(file.end - file.start);
      for (let offset = 0; offset < bytes.byteLength;) {
        signal?.throwIfAborted();
        offset += await readInto(file, bytes.subarray(offset), file.start + offset);
      }
      return bytes;
    } catch (error) {
      throw directoryError(error, "get", key);
    }
  }

  async stream(key: string, options: GetOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const file = await this.#open(key, options).catch((error: unknown) => {
      throw directoryError(error, "get", key);
    });
    const { signal } = options;
    let offset = file.start;
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          signal?.throwIfAborted();
          const chunk = new Uint8Array(Math.min(CHUNK_BYTES, file.end - offset));
          if (chunk.byteLength > 0) {
            const count = await readInto(file, chunk, offset);
            offset += count;
            controller.enqueue(chunk.subarray(0, count));
          }
          if (offset < file.end) return;
          await file.handle.close();
          controller.close();
        } catch (error) {
          await file.handle.close();
          throw directoryError(error, "get", key);
        }
      },
      cancel: () => file.handle.close(),
    });
  }

  async head(key: string, options: SignalOption = {}): Promise<ObjectInfo | undefined> {
    options.signal?.throwIfAborted();
    try {
      return await this.#info(key);
    } catch (error) {
      throw directoryError(error, "look at", key);
    }
  }

  async list(prefix: string, options: ListOptions = {}): Promise<ListPage> {
    const { after = "", signal } = options;
    const limit = pageSize(options.limit);
    await this.#checkFolder();
    const objects: ObjectInfo[] = [];
    try {
      const keys = keysInOrder(this.#path, { prefix, after, hidden: UNFINISHED, signal });
      for await (const key of keys) {
        if (objects.length === limit) return { objects, more: true, nowMs: this.#clock.now() };
        // Removed since its folder was read.
        const info = await this.#info(key);
        if (info) objects.push(info);
      }
    } catch (error) {
      throw directoryError(error, "list", prefix);
    }
    return { objects, more: false, nowMs: this.#clock.now() };
  }

  async delete(keys: readonly string[], options: SignalOption = {}): Promise<void> {
    for (const key of keys) checkKey(key);
    const folders = new Set<string>();
    for (const key of keys) {
      options.signal?.throwIfAborted();
      try {
        await unlink(join(this.#path, key));
        folders.add(dirname(join(this.#path, key)));
      } catch (error) {
        const errno = errnoOf(error);
        if (errno !== "ENOENT" && errno !== "ENOTDIR") throw directoryError(error, "delete", key);
      }
    }
    for (const folder of folders) await syncFolder(folder);
  }

  /** What is unfinished has no key yet: of the whole store, whatever the prefix. */
  async abortUploads(prefix: string, options: AbortUploadsOptions): Promise<number> {
    const { olderThanMs, signal } = options;
    try {
      return await this.#removeUnfinished(join(this.#path, UNFINISHED), { olderThanMs, signal });
    } catch (error) {
      throw directoryError(error, "tidy", prefix);
    }
  }

  /** Gives a finished file its name, and makes the name durable. */
  async #publish(temporary: string, key: string, ifAbsent: boolean): Promise<void> {
    const final = join(this.#path, key);
    const folder = dirname(final);
    for (let tries = 1; ; tries += 1) {
      await this.#makeFolder(folder);
      try {
        await (ifAbsent ? link(temporary, final) : rename(temporary, final));
        break;
      } catch (error) {
        if (errnoOf(error) === "EEXIST" && (await this.#info(key))) {
          throw new StoreError("exists", `Cannot put "${key}": it exists already`, {
            cause: error,
          });
        }
        if (errnoOf(error) !== "ENOENT" || tries === 2) throw error;
        // Somebody tidied an empty folder away since we made it.
        this.#durable.clear();
      }
    }
    await syncFolder(folder);
  }

  /** Makes a folder and those above it, and makes all their names durable, once each: a killed put may have left some that are not. */
  async #makeFolder(folder: string): Promise<void> {
    const parent = dirname(folder);
    if (this.#durable.has(folder) || parent === folder) return;
    const ours = folder.startsWith(this.#path);
    if (ours) await mkdir(folder, { recursive: true, mode: 0o700 });
    await this.#makeFolder(parent);
    await syncFolder(parent).catch((error: unknown) => {
      // Above the store's folder we may have no right to look, and then made nothing there either.
      const errno = errnoOf(error);
      if (parent.startsWith(this.#path) || (errno !== "EACCES" && errno !== "EPERM")) throw error;
    });
    this.#durable.add(folder);
  }

  async #info(key: string): Promise<ObjectInfo | undefined> {
    const stat = await lstat(this.#at(key), { bigint: true }).catch(absent);
    if (!stat?.isFile()) return undefined;
    return { key, sizeBytes: Number(stat.size), modifiedMs: Number(stat.mtimeNs / 1_000_000n) };
  }

  async #open(key: string, options: GetOptions): Promise<OpenFile> {
    const { range, signal } = options;
    if (range) checkRange(range);
    signal?.throwIfAborted();
    const handle = await open(this.#at(key), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new StoreError("missing", `Cannot get "${key}": it is no object`);
      const end = Math.min(range?.end ?? stat.size, stat.size);
      const start = Math.min(range?.start ?? 0, end);
      return { handle, start, end, [Symbol.asyncDispose]: () => handle.close() };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Where an object is. Read keys may be anything that a list gave, but never lead out of the folder. */
  #at(key: string): string {
    const parts = key.split("/");
    const bad = (part: string): boolean => part === "" || part === "." || part === "..";
    if (key.includes("\0") || parts[0] === UNFINISHED || parts.some(bad)) {
      throw new StoreError(
        "unsupported",
        `Cannot use the key ${JSON.stringify(key.slice(0, 80))}: not the name of an object`,
      );
    }
    return join(this.#path, key);
  }

  /** What stands where the store's folder should be says nothing about what the store holds, least of all that it is empty. */
  async #checkFolder(): Promise<void> {
    const stat = await lstat(this.#path).catch(() => undefined);
    if (!stat || stat.isDirectory() || stat.isSymbolicLink()) return;
    throw new StoreError("unavailable", `Cannot use the store "${this.name}": it is no folder`);
  }

  /** Removes what killed puts left behind; at most once a day. */
  async #sweep(unfinished: string): Promise<void> {
    const now = this.#clock.now();
    if (this.#sweptAt !== undefined && now - this.#sweptAt < LEFTOVER_MS) return;
    this.#sweptAt = now;
    await this.#removeUnfinished(unfinished, { olderThanMs: LEFTOVER_MS });
  }

  async #removeUnfinished(unfinished: string, options: AbortUploadsOptions): Promise<number> {
    let removed = 0;
    for (const name of (await readdir(unfinished).catch(absent)) ?? []) {
      options.signal?.throwIfAborted();
      const path = join(unfinished, name);
      const stat = await lstat(path).catch(absent);
      if (!stat || this.#clock.now() - stat.mtimeMs <= options.olderThanMs) continue;
      await unlink(path).catch(absent);
      removed += 1;
    }
    return removed;
  }
}

interface OpenFile extends AsyncDisposable {
  readonly handle: FileHandle;
  readonly start: number;
  readonly end: number;
}

/** A step of a put on our own disk. A source's errors are not ours to explain, even where they are a disk's too. */
async function onDisk<T>(key: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw directoryError(error, "put", key);
  }
}

async function writeDurably(path: string, body: Body, options: ReadOptions): Promise<void> {
  const { key } = options;
  await using file = await onDisk(key, () => open(path, "wx", 0o600));
  let position = 0;
  for await (const chunk of body instanceof Uint8Array ? [body] : exactly(body, options)) {
    await onDisk(key, () => writeAll(file, chunk, position));
    position += chunk.byteLength;
  }
  await onDisk(key, () => file.sync());
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let offset = 0; offset < bytes.byteLength;) {
    const left = bytes.byteLength - offset;
    const { bytesWritten } = await file.write(bytes, offset, left, position + offset);
    offset += bytesWritten;
  }
}

async function readInto(file: OpenFile, bytes: Uint8Array, position: number): Promise<number> {
  const { bytesRead } = await file.handle.read(bytes, 0, bytes.byteLength, position);
  if (bytesRead === 0) throw new Error("the file became shorter while it was read");
  return bytesRead;
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, O_RDONLY | O_DIRECTORY);
  await folder.sync();
}

function absent(error: unknown): undefined {
  const errno = errnoOf(error);
  if (errno === "ENOENT" || errno === "ENOTDIR") return undefined;
  throw error;
}
