import { expect, test } from "bun:test";
import { chmodSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";

import { tempDir } from "./temp-dir.ts";
import { describeTree } from "./tree.ts";

test("describeTree says type, mode, content, target and links of every path", () => {
  using dir = tempDir();
  mkdirSync(`${dir.path}/a`);
  writeFileSync(`${dir.path}/a/one`, "x");
  chmodSync(`${dir.path}/a/one`, 0o640);
  linkSync(`${dir.path}/a/one`, `${dir.path}/a/two`);
  symlinkSync("/nowhere", `${dir.path}/link`);
  mkdirSync(`${dir.path}/skipped`);
  const tree = describeTree(dir.path, { skip: ["skipped"] });
  expect(Object.keys(tree)).toEqual(["a", "a/one", "a/two", "link"]);
  expect(tree["a/one"]).toMatchObject({ type: "file", mode: "0640", hardlink: "a/one" });
  expect(tree["a/two"]).toMatchObject({ hardlink: "a/one" });
  expect(tree["link"]).toMatchObject({ type: "symlink", target: "/nowhere" });
});
