import { expect, test } from "bun:test";

import * as fc from "fast-check";

import type { Entry } from "../../../src/backup/format/format.ts";
import { Tree } from "../../../src/backup/history/fold.ts";
import { Index } from "../../../src/backup/index.ts";

const names = fc.constantFrom("a", "b", "a0", "a-", "é");
const paths = fc.array(names, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
const entries = fc
  .tuple(paths, fc.boolean(), fc.nat(9))
  .map(([path, folder, stamp]): Entry =>
    folder
      ? { type: "directory", path, mode: 0o755, mtimeNs: String(stamp) }
      : { type: "symlink", path, target: "t", mtimeNs: String(stamp) },
  );
const commits = fc.array(
  fc.record({ deleted: fc.array(paths, { maxLength: 4 }), entries: fc.array(entries) }),
  { maxLength: 12 },
);

function naive(history: readonly { deleted: string[]; entries: Entry[] }[]): Map<string, Entry> {
  let tree: Entry[] = [];
  for (const { deleted, entries } of history) {
    for (const gone of deleted) {
      tree = tree.filter(({ path }) => path !== gone && !path.startsWith(`${gone}/`));
    }
    for (const entry of entries) tree = [...tree.filter(({ path }) => path !== entry.path), entry];
  }
  return new Map(tree.map((entry) => [entry.path, entry]));
}

test("a folded tree is what a naive replay of the commits gives", () => {
  fc.assert(
    fc.property(commits, (history) => {
      const tree = new Tree();
      for (const commit of history) tree.apply(commit);
      expect(sorted(tree.entries)).toEqual(sorted(naive(history)));
    }),
    { numRuns: 500 },
  );
});

test("a folded tree is what the index records of the same commits", () => {
  fc.assert(
    fc.property(commits, (history) => {
      const tree = new Tree();
      using index = new Index(":memory:");
      for (const [at, { deleted, entries }] of history.entries()) {
        tree.apply({ deleted, entries });
        const header = {
          format: 1,
          position: at + 1,
          id: `commit-${at}`,
          user: "me",
          machine: "m",
          time: at,
          changed: 0,
          deletedCount: 0,
          bytes: 0,
        };
        const items = entries.map((entry) => ({ entry, stamp: "", racy: false }));
        index.record(header, { deleted, entries: items });
      }
      const recorded = new Map([...index.all()].map(({ entry }) => [entry.path, entry]));
      expect(sorted(tree.entries)).toEqual(sorted(recorded));
    }),
    { numRuns: 60 },
  );
});

function sorted(tree: ReadonlyMap<string, Entry>): [string, Entry][] {
  return [...tree].sort(([a], [b]) => (a < b ? -1 : 1));
}
