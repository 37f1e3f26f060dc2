import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { createIgnore, readRules } from "../../../src/backup/notice/ignore.ts";
import { Root } from "../../../src/volume/root.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** A trailing slash marks a folder. */
function covers(path: string, rules = {}): boolean {
  const isDirectory = path.endsWith("/");
  return createIgnore(rules).covers(isDirectory ? path.slice(0, -1) : path, isDirectory);
}

test.each([
  ".sidecar/",
  ".sidecar/index.sqlite",
  ".sidecar/trash/a/b",
  ".sidecar-copies/x/copy.sqlite",
  ".last-sync",
  "lost+found/",
  "workspace/.sidecar-tmp-0123456789abcdef01234567",
  ".sidecar-tmp-last-sync",
  "openclaw/cache/",
  "openclaw/cache/control-ui-assets/a.js",
  "openclaw/tmp/gateway.state.lock",
  "openclaw/plugin-skills/",
  "openclaw/npm/x",
  "openclaw/tools/x",
  "openclaw/logs/a.log",
  "openclaw/agents/main/agent/openclaw-agent.reindex-lock.sqlite",
  "openclaw/agents/main/agent/openclaw-agent.generation-lock.sqlite-journal",
  "openclaw/agents/main/agent/openclaw-agent.generation-writer.sqlite",
  "openclaw/agents/main/agent/openclaw-agent.sqlite.memory-reindex-1f-wal",
  "openclaw/browser/default/user-data/SingletonLock",
  "workspace/app/node_modules/",
  "workspace/app/node_modules/left/index.js",
  "workspace/a/__pycache__/x.pyc",
  "home/.cache/",
  "home/.npm/_logs/x",
])("createIgnore leaves out %s", (path) => {
  expect(covers(path)).toBe(true);
});

test.each([
  "openclaw/",
  "openclaw/openclaw.json",
  "openclaw/openclaw.json.last-good",
  "openclaw/state/openclaw.sqlite",
  "openclaw/agents/main/agent/openclaw-agent.sqlite",
  "openclaw/agents/main/agent/openclaw-agent.sqlite-wal",
  "openclaw/extensions/whatsapp/node_modules/a.js",
  "openclaw/agents/main/cache/",
  "openclaw/browser/default/user-data/Default/Cookies",
  "workspace/.sidecar-tmp-notes",
  "openclaw/cachet/",
  "cache/",
  "workspace/cache/",
  "workspace/tmp/x",
  "workspace/logs/x.log",
  "workspace/.git/",
  "workspace/.git/objects/ab/cd",
  "workspace/yarn.lock",
  "workspace/node_modules",
  "workspace/lost+found/",
  "workspace/.sidecar/",
  "workspace/flock.sqlite",
  "home/.ssh/id_ed25519",
  "home/SingletonLock",
  "node_modules/",
])("createIgnore keeps %s", (path) => {
  expect(covers(path)).toBe(false);
});

test.each<[rules: string, path: string, ignored: boolean]>([
  ["*.log", "workspace/a/b.log", true],
  ["*.log", "home/a.log", false],
  ["*.log", "openclaw/a.log", false],
  ["/build/", "workspace/build/", true],
  ["/build/", "workspace/build/x", true],
  ["/build/", "workspace/a/build/", false],
  ["build/", "workspace/build", false],
  ["*.log\n!keep.log", "workspace/keep.log", false],
  ["!node_modules", "workspace/node_modules/", true],
  ["*", "workspace/.backupignore", false],
  ["*", "workspace/a", true],
  ["*", "workspace/", false],
  ["A", "workspace/a", false],
  ["# *", "workspace/a", false],
  ["../openclaw", "openclaw/openclaw.json", false],
  ["\\", "workspace/a", false],
])("createIgnore with %j says for %s: %p", (text, path, ignored) => {
  expect(covers(path, { workspace: text })).toBe(ignored);
});

test("createIgnore answers soon, whatever the rules and names are", () => {
  const ignore = createIgnore({ workspace: `${"*a".repeat(12)}b\n${"*".repeat(300)}b` });
  const start = performance.now();
  ignore.matches(`workspace/${"a".repeat(255)}`, false);
  expect(performance.now() - start).toBeLessThan(1_000);
});

test("readRules reads the rule files, bounded, and follows no link", () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "workspace"));
  mkdirSync(join(dir.path, "home"));
  writeFileSync(join(dir.path, "secret"), "*");
  using root = new Root(dir.path);
  expect(readRules(root)).toEqual({});
  symlinkSync("../secret", join(dir.path, "home", ".backupignore"));
  writeFileSync(join(dir.path, "workspace", ".backupignore"), "*.log\n");
  expect(readRules(root)).toEqual({ workspace: "*.log\n" });
  writeFileSync(join(dir.path, "workspace", ".backupignore"), `${"x".repeat(99)}\n`.repeat(1000));
  expect(readRules(root).workspace?.length).toBeLessThanOrEqual(16 * 1024);
  expect(readRules(root).workspace?.endsWith("x\n")).toBe(true);
});
