import * as fc from "fast-check";

import type { Commit, Entry } from "../../src/backup/format/format.ts";

/** Names that a Linux file can have and that have broken programs: newlines, U+0001, pax look-alikes, 255 bytes. */
export const fileName: fc.Arbitrary<string> = fc.oneof(
  fc
    .string({ unit: "binary", minLength: 1, maxLength: 20 })
    .map((name) => name.replaceAll("/", "_").replaceAll("\0", "_"))
    .filter((name) => name.isWellFormed() && name !== "." && name !== ".."),
  fc.constantFrom(
    "plain.md",
    "a\nb",
    "\u0001",
    " ",
    "...",
    "-rf",
    "é",
    "e\u0301",
    "\uFFFF",
    "PaxHeader",
    "30 path=/etc/passwd\n",
    "@LongLink",
    ".commit.json",
    "x".repeat(255),
    "é".repeat(127),
    "y".repeat(99),
    "__proto__",
  ),
);

/** A path of one to six components, sometimes of forty. */
export const volumePath: fc.Arbitrary<string> = fc
  .oneof(
    { weight: 9, arbitrary: fc.array(fileName, { minLength: 1, maxLength: 6 }) },
    { weight: 1, arbitrary: fc.array(fileName, { minLength: 30, maxLength: 40 }) },
  )
  .map((parts) => parts.join("/"));

const hash = fc.stringMatching(/^[0-9a-f]{64}$/);
const mtimeNs = fc
  .bigInt({ min: -(2n ** 62n), max: 2n ** 62n })
  .map((nanoseconds) => nanoseconds.toString());

/** An entry whose content, if any, stands in blobs. */
export function entryAt(path: string): fc.Arbitrary<Entry> {
  return fc.oneof(
    fc
      .record({
        mode: fc.integer({ min: 0, max: 0o777 }),
        mtimeNs,
        sha256: hash,
        blobs: fc.array(fc.record({ blob: hash, length: fc.nat() }), { maxLength: 3 }),
      })
      .map(({ blobs, ...rest }) => ({
        type: "file" as const,
        path,
        ...rest,
        size: blobs.reduce((sum, { length }) => sum + length, 0),
        extents: blobs.map((extent) => ({ ...extent, offset: 0 })),
      })),
    fc
      .record({ mode: fc.integer({ min: 0, max: 0o7777 }), mtimeNs })
      .map((rest) => ({ type: "directory" as const, path, ...rest })),
    fc
      .record({ target: fc.string({ unit: "binary" }), mtimeNs })
      .map((rest) => ({ type: "symlink" as const, path, ...rest })),
  );
}

export interface CommitCase {
  readonly commit: Commit;
  readonly members: ReadonlyMap<string, Uint8Array>;
}

/** A commit with some contents inside and some in blobs. */
export const commitCase: fc.Arbitrary<CommitCase> = fc
  .record({
    position: fc.integer({ min: 1, max: 9_999_999_999 }),
    paths: fc.uniqueArray(volumePath, { maxLength: 12 }),
    deleted: fc.array(volumePath, { maxLength: 5 }),
    time: fc.integer({ min: 0, max: 4_000_000_000_000 }),
  })
  .chain(({ position, paths, deleted, time }) =>
    fc
      .tuple(
        ...paths.map((path) =>
          fc.oneof(
            entryAt(path).map((entry) => ({ entry, content: undefined })),
            fc
              .record({
                content: fc.uint8Array({ maxLength: 2_000 }),
                mode: fc.integer({ min: 0, max: 0o777 }),
                mtimeNs,
                sha256: hash,
              })
              .map(({ content, ...rest }) => ({
                entry: {
                  type: "file" as const,
                  path,
                  ...rest,
                  size: content.length,
                  extents: [
                    { commit: position, member: `data/${path}`, offset: 0, length: content.length },
                  ],
                },
                content,
              })),
          ),
        ),
      )
      .map((items): CommitCase => ({
        commit: {
          format: 1,
          position,
          id: "a-random-id",
          user: "user-1",
          machine: "machine-1",
          time,
          changed: items.length,
          deletedCount: deleted.length,
          bytes: 0,
          entries: items.map(({ entry }) => entry),
          deleted,
        },
        members: new Map(
          items.flatMap(({ entry, content }): [string, Uint8Array][] =>
            content ? [[`data/${entry.path}`, content]] : [],
          ),
        ),
      })),
  );
