import { expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import * as fc from "fast-check";

import { Root } from "../../src/volume/root.ts";
import { isVolumeError } from "../../src/volume/volume-error.ts";
import { tempDir } from "../support/temp-dir.ts";

const NAMES = ["a", "b", "f"];
const name = fc.constantFrom(...NAMES);
const step = fc.constantFrom(...NAMES, "..", ".", "outside", "root");
const folder = fc.array(name, { minLength: 0, maxLength: 3 });
const target = fc
  .tuple(
    fc.constantFrom("", "$ROOT/", "$OUT/", "/"),
    fc.array(step, { minLength: 1, maxLength: 5 }),
  )
  .map(([start, steps]) => start + steps.join("/"));
const tree = fc.record({
  folders: fc.array(folder, { maxLength: 6 }),
  links: fc.array(fc.tuple(folder, name, target), { maxLength: 8 }),
  paths: fc.array(fc.array(name, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 12 }),
});

test("whatever links there are, what is read is what the kernel finds there, and lies inside", () => {
  const counts = { inside: 0, refused: 0 };
  fc.assert(
    fc.property(tree, ({ folders, links, paths }) => {
      using dir = tempDir();
      const base = realpathSync(dir.path);
      const top = join(base, "root");
      for (const where of [top, join(base, "outside")]) {
        for (const parts of [[], ["a"], ["b"], ...folders]) {
          attempt(() => mkdirSync(join(where, ...parts), { recursive: true }));
          attempt(() => writeFileSync(join(where, ...parts, "f"), join(where, ...parts, "f")));
        }
      }
      for (const [parts, at, to] of links) {
        const text = to.replace("$ROOT", top).replace("$OUT", base);
        attempt(() => symlinkSync(text, join(top, ...parts, at)));
      }
      using root = new Root(top);
      for (const path of paths) {
        const content = read(root, path.join("/"));
        if (content === undefined) {
          counts.refused += 1;
          continue;
        }
        counts.inside += 1;
        const real = realpathSync(join(top, ...path));
        expect(content).toBe(real);
        expect(real).toStartWith(`${top}/`);
      }
    }),
    { numRuns: 400 },
  );
  expect(counts.inside).toBeGreaterThan(100);
  expect(counts.refused).toBeGreaterThan(100);
}, 60_000);

/** The content, which is the file's own path; undefined where the root refuses. */
function read(root: Root, path: string): string | undefined {
  try {
    using place = root.target(path);
    const fd = place.dir.openFile(place.name);
    try {
      return readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isVolumeError(error)) return undefined;
    throw error;
  }
}

function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // Something of the kind is there already.
  }
}
