import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
  type BigIntStats,
} from "node:fs";

import { z } from "zod";

import type { S3Credentials } from "./s3-settings.ts";

const MAX_BYTES = 64 * 1024;

const word = z
  .string("must be a string")
  .regex(/^[\x21-\x7e]{1,8192}$/, "must be printable ASCII without spaces");
const token = z
  .union([word, z.literal("")], "must be printable ASCII without spaces")
  .nullish()
  .transform((value) => (value ? value : undefined));
const time = z.iso
  .datetime({ offset: true, error: "must be a time such as 2026-11-20T12:00:00Z" })
  .nullish()
  .transform((value) => (value ? Date.parse(value) : undefined));

const schema = z
  .object({ accessKeyId: word, secretAccessKey: word, sessionToken: token, expiresAt: time })
  .transform((found): S3Credentials => found);

/** How the output of an AWS `credential_process` calls the same. */
const AWS_NAMES: Readonly<Record<string, string>> = {
  AccessKeyId: "accessKeyId",
  SecretAccessKey: "secretAccessKey",
  SessionToken: "sessionToken",
  Expiration: "expiresAt",
};

/**
 * Credentials as JSON gives them: `{accessKeyId, secretAccessKey, sessionToken?, expiresAt?}` with an ISO 8601 time, or the
 * same under AWS's names. Throws a sentence that names what is wrong and never a value.
 */
export function parseCredentials(value: unknown): S3Credentials {
  const given =
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([name, of]) => [AWS_NAMES[name] ?? name, of]))
      : value;
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) =>
    path.length === 0 ? "they are no JSON object" : `${String(path[0])} ${message}`,
  );
  throw new Error(`Cannot use the credentials: ${[...new Set(faults)].join("; ")}`);
}

/** A credentials file as it was at one moment. */
export interface CredentialsFile {
  readonly credentials: S3Credentials;
  /** Changes with the file, also where it was replaced, or a link on its way leads elsewhere. */
  readonly stamp: string;
  /** Who else can read it, as words; undefined where that is root alone. */
  readonly exposure: string | undefined;
}

/** What tells one content of the file from the next. Throws where it cannot be looked at. */
export function stampOfFile(path: string): string {
  return stampOf(statSync(path, { bigint: true }));
}

/** Reads the file; links are followed. Throws a sentence without a word of its content. */
export function readCredentialsFile(
  path: string,
  options: { readonly volume?: string | undefined } = {},
): CredentialsFile {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) throw new Error("Cannot use the credentials: they are no regular file");
    const bytes = Buffer.alloc(MAX_BYTES + 1);
    let size = 0;
    for (let read = -1; read !== 0 && size < bytes.length; size += read)
      read = readSync(fd, bytes, size, bytes.length - size, size);
    if (size > MAX_BYTES)
      throw new Error(`Cannot use the credentials: the file has more than ${MAX_BYTES} bytes`);
    const credentials = parseCredentials(parseJson(bytes.toString("utf8", 0, size)));
    return { credentials, stamp: stampOf(stat), exposure: exposureOf(path, stat, options.volume) };
  } finally {
    closeSync(fd);
  }
}

function stampOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(":");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own words quote what it could not read.
    throw new Error("Cannot use the credentials: the file is no JSON, or only half of it");
  }
}

function exposureOf(
  path: string,
  { mode, uid }: BigIntStats,
  volume: string | undefined,
): string | undefined {
  const found: string[] = [];
  const bits = (mode & 0o777n).toString(8).padStart(4, "0");
  if ((mode & 0o077n) !== 0n) found.push(`its mode is ${bits}, which lets others at it; use 0600`);
  const self = process.geteuid?.() ?? 0;
  if (uid !== 0n && uid !== BigInt(self)) found.push(`it belongs to uid ${uid}; give it to root`);
  if (volume !== undefined && `${realpathSync(path)}/`.startsWith(`${realpathSync(volume)}/`))
    found.push("it is on the volume, where the agent and the backup get it; put it elsewhere");
  return found.length === 0 ? undefined : found.join("; ");
}
