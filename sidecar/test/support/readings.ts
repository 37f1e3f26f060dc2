import { createHash } from "node:crypto";

import type { Entry } from "../../src/backup/format/format.ts";
import { ContentChanged, INLINE_BYTES, type Reading } from "../../src/backup/read/reading.ts";

export function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

export interface FileOptions {
  readonly again?: boolean;
  /** What the source gives when it is sent; a difference makes it fail with ContentChanged, as a real one does. */
  readonly sendsInstead?: string;
  readonly onDispose?: () => void;
}

/** What reading a file with this content gives, for a store that does not have it. */
export function changedFile(path: string, content: string, options: FileOptions = {}): Reading {
  const bytes = Buffer.from(content);
  const hash = sha256(bytes);
  const entry: Entry = {
    type: "file",
    path,
    mode: 0o644,
    mtimeNs: "1700000000123456789",
    size: bytes.length,
    sha256: hash,
    extents: [],
  };
  const common = {
    kind: "changed",
    item: { entry, stamp: `stamp of ${hash}`, racy: false },
    again: options.again ?? false,
  } as const;
  if (bytes.length <= INLINE_BYTES) return { ...common, content: { kind: "inline", bytes } };
  const source = {
    sizeBytes: bytes.length,
    async *open() {
      const half = bytes.length >> 1;
      yield bytes.subarray(0, half);
      if (options.sendsInstead !== undefined) throw new ContentChanged(path);
      yield bytes.subarray(half);
    },
  };
  const dispose = options.onDispose ?? (() => undefined);
  return { ...common, content: { kind: "blob", source, dispose } };
}

export function changedFolder(path: string): Reading {
  return {
    kind: "changed",
    item: {
      entry: { type: "directory", path, mode: 0o755, mtimeNs: "1700000000123456789" },
      stamp: `d:${path}`,
      racy: false,
    },
    content: undefined,
    again: false,
  };
}

export function gone(path: string): Reading {
  return { kind: "gone", path };
}
