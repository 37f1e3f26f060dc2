import { closeSync, readSync } from "node:fs";

import { TEMP_NAME, TEMP_PREFIX } from "../../volume/atomic.ts";
import { OWN_FOLDER } from "../../volume/marker.ts";
import type { Root } from "../../volume/root.ts";
import { RuleSet } from "./rule-set.ts";

/** Where copies of databases are made that SQLite must write by path. Ours as well, but the agent's user can enter it. */
export const COPIES_FOLDER = ".sidecar-copies";
/** The time of the last commit, for people. */
export const LAST_SYNC = ".last-sync";
/** What the last one is called until it is whole. One name for ever: a kill leaves one file behind, not many. */
export const LAST_SYNC_TEMP = `${TEMP_PREFIX}last-sync`;
/** The agent's own rules, in gitignore syntax, at the top of each of `RULE_FOLDERS`. */
export const IGNORE_FILE = ".backupignore";
export const RULE_FOLDERS = ["workspace", "home"] as const;

/** What is read of one rule file. */
const MAX_RULE_BYTES = 16 * 1024;

/** Texts of the rule files by folder. */
export type Rules = Readonly<Partial<Record<(typeof RULE_FOLDERS)[number], string>>>;

/** Decides what is never backed up. Pure: the answer depends on the path alone. */
export interface Ignore {
  /** True where `path` itself is ignored. A folder stands for all that is in it; whoever walks asks for each folder on the way. */
  matches(path: string, isDirectory: boolean): boolean;
  /** True where `path` or a folder on its way is ignored. */
  covers(path: string, isDirectory: boolean): boolean;
}

/** Ours and the file system's, at the top of the volume. */
const TOP = new Set([OWN_FOLDER, COPIES_FOLDER, LAST_SYNC, LAST_SYNC_TEMP, "lost+found"]);
/** What OpenClaw fetches or makes again. Source: openclaw.md, section 6. */
const GATEWAY_FOLDERS = new Set(
  ["cache", "tmp", "plugin-skills", "npm", "tools", "logs"].map((name) => `openclaw/${name}`),
);
/** Locks and scratch databases, with the files SQLite keeps beside them. */
const GATEWAY_LOCK =
  /^openclaw\/(?:state|agents\/[^/]+\/agent)\/[^/]*(?:lock|\.generation-writer)\.sqlite(?:-wal|-shm|-journal)?$/s;
const GATEWAY_SCRATCH = /^openclaw\/agents\/[^/]+\/agent\/[^/]*\.memory-reindex-[^/]*$/s;
/** Links that say which process has the profile open. */
const BROWSER_LOCK = /^openclaw\/browser\/[^/]+\/user-data\/Singleton(?:Lock|Cookie|Socket)$/s;
/** Folders that their tools fill again, wherever they are in the agent's own folders. */
const CACHES = new Set([
  "node_modules",
  ".cache",
  "__pycache__",
  ".pytest_cache",
  ".mypy_cache",
  ".ruff_cache",
  ".parcel-cache",
  ".pnpm-store",
]);
const HOME_CACHES = new Set([
  "home/.npm",
  "home/.bun/install/cache",
  "home/.yarn/cache",
  "home/.cargo/registry",
  "home/go/pkg/mod",
]);

export function createIgnore(rules: Rules = {}): Ignore {
  const own = new Map<string, RuleSet>();
  for (const folder of RULE_FOLDERS) {
    const text = rules[folder];
    if (text) own.set(folder, new RuleSet(text));
  }
  const matches = (path: string, isDirectory: boolean): boolean =>
    isBuiltIn(path, isDirectory) || isRuledOut(own, path, isDirectory);
  return {
    matches,
    covers(path, isDirectory) {
      for (let slash = path.indexOf("/"); slash > 0; slash = path.indexOf("/", slash + 1)) {
        if (matches(path.slice(0, slash), true)) return true;
      }
      return matches(path, isDirectory);
    },
  };
}

/** The rule files of a volume. One that is missing, is no plain file or cannot be read is an empty one: then more is backed up. */
export function readRules(root: Root): Rules {
  const rules: Partial<Record<(typeof RULE_FOLDERS)[number], string>> = {};
  for (const folder of RULE_FOLDERS) {
    const text = readRuleFile(root, `${folder}/${IGNORE_FILE}`);
    if (text !== undefined) rules[folder] = text;
  }
  return rules;
}

function isBuiltIn(path: string, isDirectory: boolean): boolean {
  const slash = path.lastIndexOf("/");
  const name = slash < 0 ? path : path.slice(slash + 1);
  if (TEMP_NAME.test(name)) return true;
  if (slash < 0) return TOP.has(path);
  if (path.startsWith("openclaw/")) {
    if (isDirectory) return GATEWAY_FOLDERS.has(path);
    return GATEWAY_LOCK.test(path) || GATEWAY_SCRATCH.test(path) || BROWSER_LOCK.test(path);
  }
  if (!isDirectory || !RULE_FOLDERS.some((folder) => path.startsWith(`${folder}/`))) return false;
  return CACHES.has(name) || HOME_CACHES.has(path);
}

function isRuledOut(
  own: ReadonlyMap<string, RuleSet>,
  path: string,
  isDirectory: boolean,
): boolean {
  if (own.size === 0) return false;
  const slash = path.indexOf("/");
  const rules = slash < 0 ? undefined : own.get(path.slice(0, slash));
  const below = path.slice(slash + 1);
  // The rules themselves must come back with the files they speak of.
  return below !== IGNORE_FILE && rules !== undefined && rules.ignores(below, isDirectory);
}

function readRuleFile(root: Root, path: string): string | undefined {
  try {
    using place = root.place(path, { links: "refuse" });
    const fd = place.dir.openFile(place.name);
    try {
      const buffer = Buffer.alloc(MAX_RULE_BYTES);
      const length = readSync(fd, buffer, 0, MAX_RULE_BYTES, 0);
      const text = buffer.toString("utf8", 0, length);
      // A line cut short could say something else than it was meant to.
      return length < MAX_RULE_BYTES ? text : text.slice(0, text.lastIndexOf("\n") + 1);
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}
