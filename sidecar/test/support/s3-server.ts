import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

export interface S3Settings {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
  readonly bucket: string;
}

const SCRIPT = join(import.meta.dir, "../../../scripts/s3-server.mjs");

/** On the global object: every test file has its own copy of this module. */
const shared = globalThis as { sidecarS3ForTests?: Promise<S3Settings> };

/**
 * A real S3 server: the one that S3_TEST_ENDPOINT and its companions name, else one of our own, started once for this
 * process and gone with it. Fails with what to install. Each test keeps to a random prefix of its own. The first call
 * takes some seconds: make it in a `beforeAll` with `S3_START_LIMIT_MS`.
 */
export function s3ForTests(): Promise<S3Settings> {
  shared.sidecarS3ForTests ??= given() ?? start();
  return shared.sidecarS3ForTests;
}

export const S3_START_LIMIT_MS = 400_000;

function given(): Promise<S3Settings> | undefined {
  const endpoint = process.env["S3_TEST_ENDPOINT"];
  if (endpoint === undefined || endpoint === "") return undefined;
  return Promise.resolve({
    endpoint,
    accessKeyId: variable("S3_TEST_ACCESS_KEY_ID"),
    secretAccessKey: variable("S3_TEST_SECRET_ACCESS_KEY"),
    bucket: variable("S3_TEST_BUCKET"),
    region: process.env["S3_TEST_REGION"] ?? "us-east-1",
  });
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") {
    throw new Error(`Cannot use S3_TEST_ENDPOINT: ${name} is not set`);
  }
  return value;
}

async function start(): Promise<S3Settings> {
  // Its standard input is a pipe that only we hold: however this process ends, the server notices and ends too.
  const child = spawn("node", [SCRIPT], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ended = new Promise<never>((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code) =>
      reject(new Error(`Cannot test against S3: the server ended with ${code}\n${said}`)),
    );
  });
  const [line] = await Promise.race([firstLine(child), ended]);
  ended.catch(() => undefined);
  for (const part of [child, child.stdin, child.stdout, child.stderr]) unref(part);
  return JSON.parse(line) as S3Settings;
}

async function firstLine(child: ChildProcess): Promise<[string]> {
  if (!child.stdout) throw new Error("Cannot read from the S3 server: it has no standard output");
  for await (const line of createInterface({ input: child.stdout })) return [line];
  // The exit tells more.
  return new Promise(() => undefined);
}

/** The server must not keep a finished test run alive. */
function unref(part: object): void {
  if ("unref" in part && typeof part.unref === "function") part.unref();
}
