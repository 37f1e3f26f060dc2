import { parseName, type NamePattern } from "./name-pattern.ts";

/** Rules are the agent's own: these bounds and the length of a path are what one question can cost, whatever they say. */
const MAX_RULES = 200;
const MAX_RULE_LENGTH = 256;
/** Each `**` is one more way that a path can be read. */
const MAX_FOLDERS = 3;
/** What has a longer path is backed up. */
const MAX_PATH_LENGTH = 1_024;

/** `**` between slashes: any folders, or none. */
const FOLDERS = Symbol("**");

interface Rule {
  readonly negated: boolean;
  readonly foldersOnly: boolean;
  readonly parts: readonly (NamePattern | typeof FOLDERS)[];
}

/** For each rule, how many of its parts the names so far can stand for: all the ways at once, so that none is tried twice. */
type Progress = readonly (readonly number[])[];

/**
 * Rules in gitignore syntax. Not made of regular expressions: a few `**` in one, and a path made for it, keep their
 * matcher busy for hours, and it is the agent who writes both.
 */
export class RuleSet {
  readonly #rules: readonly Rule[];
  /** The folder asked about last: its files are asked about one after the other. */
  #folder: { readonly path: string; readonly progress: Progress } | undefined;

  constructor(text: string) {
    this.#rules = text
      .split(/\r?\n/)
      .map(parseRule)
      .filter((rule) => rule !== undefined)
      .slice(0, MAX_RULES);
  }

  /** True if the last rule that speaks of `path` itself ignores it. Folders on its way have to be asked about first. */
  ignores(path: string, isDirectory: boolean): boolean {
    if (path.length > MAX_PATH_LENGTH) return false;
    const slash = path.lastIndexOf("/");
    const name = path.slice(slash + 1);
    const before = slash < 0 ? this.#start() : this.#progressOf(path.slice(0, slash));
    for (let i = this.#rules.length - 1; i >= 0; i -= 1) {
      const rule = this.#rules[i];
      if (!rule || (rule.foldersOnly && !isDirectory)) continue;
      if (advance(rule, before[i] ?? [], name).includes(rule.parts.length)) return !rule.negated;
    }
    return false;
  }

  #start(): Progress {
    return this.#rules.map((rule) => {
      const places: number[] = [];
      enter(rule, places, 0);
      return places;
    });
  }

  #progressOf(folder: string): Progress {
    const last = this.#folder;
    if (last?.path === folder) return last.progress;
    // On the way down one step is enough.
    const isBelow = last !== undefined && folder.startsWith(`${last.path}/`);
    let progress = isBelow ? last.progress : this.#start();
    for (const name of (isBelow ? folder.slice(last.path.length + 1) : folder).split("/")) {
      const before = progress;
      progress = this.#rules.map((rule, i) => advance(rule, before[i] ?? [], name));
    }
    this.#folder = { path: folder, progress };
    return progress;
  }
}

/** Undefined for what is no rule: an empty line, a comment, a pattern that matches nothing or costs too much. */
function parseRule(line: string): Rule | undefined {
  if (line.startsWith("#") || line.length > MAX_RULE_LENGTH) return undefined;
  // Spaces at the end count only behind a backslash.
  let text = line.trimEnd();
  if (/(?:^|[^\\])(?:\\\\)*\\$/.test(text) && line.length > text.length) text += " ";
  const negated = text.startsWith("!");
  if (negated) text = text.slice(1);
  const foldersOnly = text.endsWith("/");
  if (foldersOnly) text = text.slice(0, -1);
  const isAnchored = text.includes("/");
  const names = (text.startsWith("/") ? text.slice(1) : text).split("/");
  if (!isAnchored) names.unshift("**");
  // Everything in a folder, but not the folder.
  if (isAnchored && names.at(-1) === "**") names.push("*");
  const parts: Rule["parts"][number][] = [];
  for (const [at, name] of names.entries()) {
    const isLast = at === names.length - 1;
    const part = name === "**" && !isLast ? FOLDERS : parseName(name);
    if (part === undefined) return undefined;
    if (part !== FOLDERS || parts.at(-1) !== FOLDERS) parts.push(part);
  }
  if (parts.filter((part) => part === FOLDERS).length > MAX_FOLDERS) return undefined;
  return { negated, foldersOnly, parts };
}

/** Where a rule can be after one more name, in order. */
function advance(rule: Rule, before: readonly number[], name: string): number[] {
  const after: number[] = [];
  for (const at of before) {
    const part = rule.parts[at];
    if (part === FOLDERS) enter(rule, after, at);
    else if (part?.(name)) enter(rule, after, at + 1);
  }
  return after;
}

/** Adds the place `at`, and the one after it where it asks for nothing. */
function enter({ parts }: Rule, places: number[], at: number): void {
  // They come in order: only the last can be the same.
  if ((places.at(-1) ?? -1) < at) places.push(at);
  if (parts[at] === FOLDERS && (places.at(-1) ?? -1) < at + 1) places.push(at + 1);
}
