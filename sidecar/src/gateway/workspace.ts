import { createHash } from "node:crypto";
import { closeSync, fstatSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { z } from "zod";

import { writeFileAtomic } from "../volume/atomic.ts";
import type { Owner } from "../volume/dir.ts";
import { Root } from "../volume/root.ts";
import { isVolumeError } from "../volume/volume-error.ts";

const FOLDER = "workspace";
const RECORD = ".sidecar/template.json";
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FILES = 1_000;

const recordSchema = z.looseObject({
  version: z.literal(1),
  /** False while the first boot is still copying: a boot that finds it so goes on. */
  done: z.boolean(),
  /** What was put into the workspace, by path below it: tells a later version which files the user never touched. */
  files: z.record(
    z.string(),
    z.looseObject({
      /** Of what was written; absent where a file was there already and stayed. */
      sha256: z.string().optional(),
      from: z.enum(["template", "environment", "user"]),
    }),
  ),
});
type TemplateRecord = z.infer<typeof recordSchema>;

export interface TemplateOptions {
  /** Absolute path of the volume; its workspace folder exists. */
  readonly dataDir: string;
  /** Absolute path of the folder that a new workspace is a copy of. */
  readonly templateDir: string;
  /** The environment, for variables such as SOUL_MD_B64. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly owner?: Owner | undefined;
  /** The volume came from the backup: its workspace is what it was, and nothing is added. */
  readonly restored?: boolean;
}

export interface TemplateResult {
  /** Paths below the workspace that were written by this call. */
  readonly written: readonly string[];
  /** One sentence for each file that could not be used. */
  readonly problems: readonly string[];
}

/**
 * Fills a new machine's workspace, once: files of the template, and those given as base64 in variables, which win. What
 * is there stays as it is. A call that was cut off is completed by the next one.
 */
export async function copyTemplate(options: TemplateOptions): Promise<TemplateResult> {
  const { dataDir, templateDir, env, owner, restored = false } = options;
  using root = new Root(dataDir);
  const before = readRecord(root);
  if (before === "unreadable") {
    return {
      written: [],
      problems: [`Cannot use "${RECORD}": it is not what this version writes`],
    };
  }
  if (before?.done) return { written: [], problems: [] };
  if (restored && !before) {
    await writeRecord(root, { version: 1, done: true, files: {} });
    return { written: [], problems: [] };
  }
  const given = filesInEnvironment(env);
  const sources = new Map<string, Source>();
  for (const path of templateFiles(templateDir)) {
    sources.set(path, { content: readFileSync(join(templateDir, path)), from: "template" });
  }
  for (const [name, content] of given.files) sources.set(name, { content, from: "environment" });

  const record: TemplateRecord = { version: 1, done: false, files: { ...before?.files } };
  await writeRecord(root, record);
  const written: string[] = [];
  const problems = [...given.problems];
  for (const [path, source] of sources) {
    try {
      const outcome = await putFile(root, { path, source, owner });
      const { written: isNew, ...entry } = outcome;
      record.files[path] = entry;
      if (isNew) written.push(path);
    } catch (error) {
      if (!isVolumeError(error, "not_directory", "outside_root", "special", "is_directory"))
        throw error;
      problems.push(error.message);
    }
  }
  await writeRecord(root, { ...record, done: true });
  return { written, problems };
}

/** Files that variables such as SOUL_MD_B64 carry: SOUL.md and its content. */
export function filesInEnvironment(env: Readonly<Record<string, string | undefined>>): {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly problems: readonly string[];
} {
  const files = new Map<string, Buffer>();
  const problems: string[] = [];
  for (const [variable, value] of Object.entries(env)) {
    const name = /^([A-Z][A-Z0-9_]{0,62})_MD_B64$/.exec(variable)?.[1];
    if (name === undefined || value === undefined || value.trim() === "") continue;
    const content = decodeBase64(value);
    if (!content) problems.push(`Cannot use "${variable}": its value is not base64`);
    else if (content.length > MAX_FILE_BYTES) {
      problems.push(`Cannot use "${variable}": ${content.length} bytes are too many`);
    } else files.set(`${name}.md`, content);
  }
  return { files, problems };
}

interface Source {
  readonly content: Buffer;
  readonly from: "template" | "environment";
}

interface Outcome {
  readonly written: boolean;
  readonly sha256?: string;
  readonly from: Source["from"] | "user";
}

async function putFile(
  root: Root,
  file: { readonly path: string; readonly source: Source; readonly owner: Owner | undefined },
): Promise<Outcome> {
  const { path, source, owner } = file;
  const sha256 = hash(source.content);
  using place = root.place(`${FOLDER}/${path}`, {
    links: "refuse",
    create: { mode: 0o755, owner },
  });
  try {
    const fd = place.dir.openFile(place.name);
    try {
      // The same bytes were most likely ours, from a run that was cut off before it could say so.
      const isOurs =
        fstatSync(fd).size === source.content.length && hash(readFileSync(fd)) === sha256;
      return { written: false, ...(isOurs ? { from: source.from, sha256 } : { from: "user" }) };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!isVolumeError(error, "missing")) throw error;
  }
  await writeFileAtomic(place, source.content, { mode: 0o644, owner });
  return { written: true, sha256, from: source.from };
}

/** Paths of the template's files, with "/", in order. The folder is the image's own and trusted. */
function templateFiles(templateDir: string): string[] {
  const files = readdirSync(templateDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(templateDir, "/").length));
  if (files.length > MAX_FILES) {
    throw new Error(`Cannot copy the template "${templateDir}": more than ${MAX_FILES} files`);
  }
  return files.sort();
}

function readRecord(root: Root): TemplateRecord | "unreadable" | undefined {
  try {
    using place = root.place(RECORD, { links: "refuse" });
    const fd = place.dir.openFile(place.name);
    try {
      return recordSchema.safeParse(parseJson(readFileSync(fd, "utf8"))).data ?? "unreadable";
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isVolumeError(error, "missing")) return undefined;
    throw error;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function writeRecord(root: Root, record: TemplateRecord): Promise<void> {
  using place = root.place(RECORD, { links: "refuse", create: { mode: 0o700 } });
  const content = Buffer.from(`${JSON.stringify(record, null, 2)}\n`);
  await writeFileAtomic(place, content, { mode: 0o600 });
}

/** Undefined where `text` is no base64, in either alphabet. */
function decodeBase64(text: string): Buffer | undefined {
  const compact = text.replace(/\s+/g, "");
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(compact) || compact.replace(/=+$/, "").length % 4 === 1) {
    return undefined;
  }
  return Buffer.from(compact, "base64");
}

function hash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
