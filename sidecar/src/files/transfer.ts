import { closeSync, fstatSync, read } from "node:fs";
import { basename, extname } from "node:path";
import { promisify } from "node:util";

import mime from "mime";

import type { Clock } from "../platform/clock.ts";
import { writeFileAtomic } from "../volume/atomic.ts";
import type { Owner } from "../volume/dir.ts";
import type { Root } from "../volume/root.ts";
import { FilesError } from "./files-error.ts";
import type { MemoryShare } from "./memory-budget.ts";
import type { RequestPath } from "./paths.ts";

/** The answer of `GET /read`. */
export interface ReadAnswer {
  readonly content: string;
  /** Bytes of the file. */
  readonly size: number;
  /** `base64` where the file is not valid UTF-8. */
  readonly encoding: "utf-8" | "base64";
}

export interface ReadOptions {
  readonly limitBytes: number;
  readonly share: MemoryShare;
}

/** The whole of a file of at most `limitBytes`, byte for byte (a byte order mark too). Throws FilesError, VolumeError. */
export async function readWhole(
  root: Root,
  path: string,
  options: ReadOptions,
): Promise<ReadAnswer> {
  const bytes = await readBytes(root, path, options);
  try {
    const content = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { content, size: bytes.byteLength, encoding: "utf-8" };
  } catch {
    return { content: bytes.toString("base64"), size: bytes.byteLength, encoding: "base64" };
  }
}

export interface StoreOptions {
  readonly owner?: Owner | undefined;
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
}

/**
 * Puts `content` at `path`, parents made where missing, a link inside the volume followed; resolves with the size. On
 * failure all is as it was before, the parents too. Throws VolumeError, or what the content threw.
 */
export async function storeFile(
  root: Root,
  { path, content }: { path: string; content: Uint8Array | AsyncIterable<Uint8Array> },
  options: StoreOptions,
): Promise<number> {
  const created: string[] = [];
  try {
    const onCreate = (folder: string): unknown => created.push(folder);
    using place = root.target(path, { create: { owner: options.owner, onCreate } });
    return await writeFileAtomic(place, content, options);
  } catch (error) {
    for (const folder of created.toReversed()) removeIfEmpty(root, folder);
    throw error;
  }
}

/** Answers whose file Bun has not opened yet, or not for certain. */
const MAX_HELD = 256;
const HOLD_MS = 5_000;

/** Files as answers, with what a browser needs to keep a stored page from acting as the dashboard. */
export class Downloads {
  readonly #root: Root;
  readonly #clock: Clock;
  #held = 0;

  constructor(root: Root, clock: Clock) {
    this.#root = root;
    this.#clock = clock;
  }

  /** The file as an attachment; for HEAD the same without a body. Throws VolumeError, FilesError `busy`. */
  answer(at: RequestPath, method: string): Response {
    using place = this.#root.target(at.path);
    const fd = place.dir.openFile(place.name);
    const headers = {
      "Content-Type": typeOf(at.spelled),
      "Content-Length": String(fstatSync(fd).size),
      "Content-Disposition": disposition(basename(at.spelled)),
      "Content-Security-Policy": "sandbox; default-src 'none'",
      "X-Content-Type-Options": "nosniff",
      "Cache-Control": "private, no-cache",
    };
    if (method === "HEAD") {
      closeSync(fd);
      return new Response(null, { headers });
    }
    return new Response(this.#hold(fd), { headers });
  }

  /**
   * A body that Bun sends with a length (a stream would go out chunked). Bun opens the path as it starts to answer, which
   * no callback tells; so our descriptor, which makes the path mean the very file that was checked, stays open for a while.
   */
  #hold(fd: number): Blob {
    if (this.#held >= MAX_HELD) {
      closeSync(fd);
      throw new FilesError("busy", "Cannot download: too many downloads at once");
    }
    this.#held += 1;
    this.#clock.after(HOLD_MS, () => {
      this.#held -= 1;
      closeSync(fd);
    });
    return Bun.file(`/proc/self/fd/${fd}`);
  }
}

/** By extension; a name without one may be one, to the library (`f` is Fortran). */
function typeOf(name: string): string {
  return (extname(name) === "" ? null : mime.getType(name)) ?? "application/octet-stream";
}

const readLater = promisify(read);

async function readBytes(
  root: Root,
  path: string,
  { limitBytes, share }: ReadOptions,
): Promise<Buffer> {
  using place = root.target(path);
  const fd = place.dir.openFile(place.name);
  try {
    const { size } = fstatSync(fd);
    if (size > limitBytes) {
      throw new FilesError(
        "too_large",
        `Cannot read "${place.path}": it has ${size} bytes, more than ${limitBytes}`,
      );
    }
    share.grow(size);
    const bytes = Buffer.alloc(size);
    let done = 0;
    while (done < size) {
      const { bytesRead } = await readLater(fd, bytes, done, size - done, done);
      // Cut meanwhile.
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return bytes.subarray(0, done);
  } finally {
    closeSync(fd);
  }
}

function removeIfEmpty(root: Root, path: string): void {
  try {
    using place = root.place(path, { links: "refuse" });
    place.dir.rmdir(place.name);
  } catch {
    // Somebody uses it, or it is gone: the failure that led here is the one to tell.
  }
}

/** RFC 6266: the name as it is for all who read RFC 8187, and an ASCII one for the rest. */
function disposition(name: string): string {
  const ascii = name.replace(/[^\x20-\x7e]|["\\%]/g, "_");
  const encoded = encodeURIComponent(name).replace(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}
