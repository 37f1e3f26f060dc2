import { expect, test } from "bun:test";

import * as fc from "fast-check";
import ignore from "ignore";

import { RuleSet } from "../../../src/backup/notice/rule-set.ts";

/** A trailing slash marks a folder. */
function ignores(rules: RuleSet, path: string): boolean {
  const isDirectory = path.endsWith("/");
  return rules.ignores(isDirectory ? path.slice(0, -1) : path, isDirectory);
}

test.each<[rules: string, path: string, ignored: boolean]>([
  ["*.log", "a/b.log", true],
  ["*.log", "a/b.log.gz", false],
  ["a*b*c", "axbxbxc", true],
  ["a*b*c", "axcxb", false],
  ["*", "a/b", true],
  ["**", "a/b", true],
  ["/a", "a", true],
  ["/a", "b/a", false],
  ["a/b", "a/b", true],
  ["a/b", "x/a/b", false],
  ["**/a/b", "x/y/a/b", true],
  ["**/a/b", "a/b", true],
  ["a/**", "a", false],
  ["a/**", "a/b/c", true],
  ["a/**/b", "a/b", true],
  ["a/**/b", "a/x/y/b", true],
  ["a/**/b", "a/x/y/c", false],
  ["a/**/**/b", "a/b", true],
  ["**/a/**/b/**/c", "x/a/a/b/a/b/c", true],
  ["a/", "a", false],
  ["a/", "x/a/", true],
  ["a/*/", "a/b/", true],
  ["*.log\n!keep.log", "keep.log", false],
  ["!keep.log\n*.log", "keep.log", true],
  ["a?c", "abc", true],
  ["a?c", "ac", false],
  ["[a-c]x", "bx", true],
  ["[a-c]x", "dx", false],
  ["[!a-c]x", "dx", true],
  ["[]]x", "]x", true],
  ["[a-]x", "-x", true],
  ["[\\]]x", "]x", true],
  ["[a", "[a", false],
  ["\\*", "*", true],
  ["\\*", "a", false],
  ["\\#a", "#a", true],
  ["\\!a", "!a", true],
  ["a\\", "a\\", false],
  ["a  ", "a", true],
  ["a\\ ", "a ", true],
  ["a//b", "a/b", false],
  ["", "a", false],
  ["/", "a", false],
  ["# a", "# a", false],
])("RuleSet of %j says for %s: %p", (text, path, ignored) => {
  expect(ignores(new RuleSet(text), path)).toBe(ignored);
});

test("RuleSet says the same as another matcher of the same syntax", () => {
  const part = fc.constantFrom("a", "b", "ab", "*", "a*", "*b", "*a*b*", "?", "[ab]", "[!a]", "**");
  const rule = fc
    .tuple(
      fc.constantFrom("", "!"),
      fc.constantFrom("", "/"),
      fc.array(part, { minLength: 1, maxLength: 4 }),
      fc.constantFrom("", "/"),
    )
    .map(([not, start, parts, end]) => `${not}${start}${parts.join("/")}${end}`);
  const path = fc
    .tuple(
      fc.array(fc.constantFrom("a", "b", "ab", "ba", "c", "bab"), { minLength: 1, maxLength: 5 }),
      fc.constantFrom("", "/"),
    )
    .map(([names, end]) => `${names.join("/")}${end}`);
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 4 }),
      fc.array(path, { minLength: 1 }),
      (rules, paths) => {
        const mine = new RuleSet(rules.join("\n"));
        const other = ignore({ ignorecase: false }).add(rules);
        for (const each of paths) {
          // It asks about the folders on the way by itself.
          const folders = [...each.slice(0, -1).matchAll(/\//g)].map(({ index }) =>
            each.slice(0, index + 1),
          );
          const ignored = [...folders, each].some((step) => ignores(mine, step));
          expect([rules, each, ignored]).toEqual([rules, each, other.ignores(each)]);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

/** Asks about every folder on the way too, as whoever walks does. */
function covers(rules: RuleSet, path: string): boolean {
  const slashes = [...path.matchAll(/\//g)].map(({ index }) => index);
  const folders = slashes.map((slash) => path.slice(0, slash));
  return folders.some((folder) => rules.ignores(folder, true)) || rules.ignores(path, false);
}

test.each([
  [`${"**/a/".repeat(3)}b`, Array(500).fill("a").join("/")],
  [`${"**/a/".repeat(10)}b`, Array(500).fill("a").join("/")],
  [`${"**/*a*a*/".repeat(3)}b`, Array(4).fill("a".repeat(255)).join("/")],
  [`${"*a".repeat(120)}b`, "a".repeat(255)],
  [`*${"a".repeat(250)}b`, Array(4).fill("a".repeat(255)).join("/")],
  [`${"?*".repeat(100)}b`, "a".repeat(255)],
])("RuleSet answers soon for 500 rules such as %s", (rule, path) => {
  const rules = new RuleSet(`${rule}\n`.repeat(500));
  const start = performance.now();
  for (let time = 0; time < 10; time += 1) expect(covers(rules, `${time}/${path}`)).toBe(false);
  expect(performance.now() - start).toBeLessThan(5_000);
});
