import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Credentials, type CredentialsEvent } from "../../src/store/credentials.ts";
import type { CredentialsOptions } from "../../src/store/credentials.ts";
import { StoreError } from "../../src/store/store.ts";
import { capturedLog } from "../support/captured-log.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const HOUR_MS = 3_600_000;
const FIRST = { accessKeyId: "AKID-FIRST-0001", secretAccessKey: "first-secret-0001" };
const SECOND = {
  accessKeyId: "AKID-SECOND-0002",
  secretAccessKey: "second-secret-0002",
  sessionToken: "second-token-0002",
};

function set(options: Partial<CredentialsOptions> = {}) {
  const clock = new ManualClock();
  const log = capturedLog();
  const events: CredentialsEvent[] = [];
  const secrets: string[] = [];
  const credentials = new Credentials({
    clock,
    log,
    onEvent: (event) => events.push(event),
    onSecrets: (more) => secrets.push(...more),
    ...options,
  });
  const types = (): string[] => events.map(({ type }) => type);
  return { clock, log, events, secrets, credentials, types };
}

function put(path: string, value: unknown): void {
  writeFileSync(`${path}.new`, typeof value === "string" ? value : JSON.stringify(value), {
    mode: 0o600,
  });
  renameSync(`${path}.new`, path);
}

test.each([
  ["ours", { ...SECOND, expiresAt: "2026-11-21T00:00:00Z" }],
  [
    "AWS's",
    {
      Version: 1,
      AccessKeyId: SECOND.accessKeyId,
      SecretAccessKey: SECOND.secretAccessKey,
      SessionToken: SECOND.sessionToken,
      Expiration: "2026-11-21T01:00:00+01:00",
    },
  ],
])("Credentials reads a file with %s names", (_, content) => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  put(file, content);
  const { credentials, secrets } = set({ file });
  expect(credentials.provide()).toEqual({ ...SECOND, expiresAt: Date.UTC(2026, 10, 21) });
  expect(secrets).toEqual([SECOND.accessKeyId, SECOND.secretAccessKey, SECOND.sessionToken]);
  expect(credentials.expiresAt).toBe("2026-11-21T00:00:00.000Z");
});

test("Credentials takes a file that was replaced within 30 s, and wakes those who wait", async () => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  put(file, FIRST);
  const { credentials, clock, types, secrets } = set({ file });
  credentials.start();
  const waiting = credentials.renewed();
  put(file, SECOND);
  await clock.advance(29_000);
  expect(credentials.provide()).toMatchObject(FIRST);
  await clock.advance(1_000);
  expect(credentials.provide()).toMatchObject(SECOND);
  expect(waiting.aborted).toBe(true);
  expect(credentials.renewed().aborted).toBe(false);
  expect(types()).toEqual(["credentials_renewed"]);
  expect(secrets).toContain(SECOND.sessionToken);
  credentials.stop();
});

test("Credentials looks at once when the store refuses those in use", () => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  put(file, FIRST);
  const { credentials } = set({ file });
  const used = credentials.provide();
  expect(credentials.refused(used)).toBe(false);
  put(file, SECOND);
  expect(credentials.refused(used)).toBe(true);
  expect(credentials.provide()).toMatchObject(SECOND);
});

test("Credentials follows links as secrets are mounted, and in-place writes", async () => {
  using dir = tempDir();
  for (const [name, content] of [
    ["v1", FIRST],
    ["v2", SECOND],
  ] as const) {
    mkdirSync(join(dir.path, name));
    put(join(dir.path, name, "r2.json"), content);
  }
  symlinkSync("v1", join(dir.path, "data"));
  symlinkSync("data/r2.json", join(dir.path, "r2.json"));
  const { credentials, clock } = set({ file: join(dir.path, "r2.json") });
  credentials.start();
  expect(credentials.provide()).toMatchObject(FIRST);
  symlinkSync("v2", join(dir.path, "next"));
  renameSync(join(dir.path, "next"), join(dir.path, "data"));
  await clock.advance(30_000);
  expect(credentials.provide()).toMatchObject(SECOND);
  writeFileSync(join(dir.path, "v2/r2.json"), JSON.stringify(FIRST));
  await clock.advance(30_000);
  expect(credentials.provide()).toMatchObject(FIRST);
  credentials.stop();
});

test.each([
  ["half written", '{"accessKeyId":"AKID-SECRET-9999","secretAcc', "no JSON"],
  ["no object", '["AKID-SECRET-9999"]', "no JSON object"],
  ["lacking the secret", '{"accessKeyId":"AKID-SECRET-9999"}', "secretAccessKey must be a string"],
  ["with a space", { ...FIRST, accessKeyId: "AKID-SECRET-9999 x" }, "accessKeyId must be"],
  ["with a bad time", { ...FIRST, expiresAt: "AKID-SECRET-9999" }, "expiresAt must be a time"],
  ["far too long", "AKID-SECRET-9999".repeat(10_000), "more than 65536 bytes"],
  ["gone", undefined, "it is not there"],
])(
  "Credentials keeps the old ones where the file is %s, and says so",
  async (_, content, words) => {
    using dir = tempDir();
    const file = join(dir.path, "r2.json");
    put(file, FIRST);
    const { credentials, clock, types, log } = set({ file });
    credentials.start();
    if (content === undefined) rmSync(file);
    else put(file, content);
    await clock.advance(30_000);
    // It may be half written.
    expect(credentials.cause()).toBeUndefined();
    await clock.advance(1_000);
    expect(credentials.provide()).toMatchObject(FIRST);
    expect(credentials.cause()?.kind).toBe("credentials_unreadable");
    expect(credentials.cause()?.message).toContain(words);
    await clock.advance(10 * 60_000);
    expect(types()).toEqual(["credentials_unreadable"]);
    expect(JSON.stringify([log.lines, credentials.cause()])).not.toContain("AKID-SECRET-9999");
    put(file, SECOND);
    await clock.advance(30_000);
    expect(credentials.cause()).toBeUndefined();
    expect(credentials.provide()).toMatchObject(SECOND);
    credentials.stop();
  },
);

test("Credentials are refused like wrong ones where there are none, and taken when they come", async () => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  const { credentials, clock, types } = set({ file });
  credentials.start();
  expect(() => credentials.provide()).toThrow(StoreError);
  expect(() => credentials.provide()).toThrow("it is not there");
  expect(types()).toEqual(["credentials_unreadable"]);
  const waiting = credentials.renewed();
  put(file, FIRST);
  await clock.advance(30_000);
  expect(waiting.aborted).toBe(true);
  expect(credentials.provide()).toMatchObject(FIRST);
  credentials.stop();
});

test("Credentials alarm an hour before they expire, again when they have, and are well with new ones", async () => {
  const clock = new ManualClock();
  const expiresAt = clock.now() + 2 * HOUR_MS;
  const { credentials, types, log } = set({ clock, initial: { ...FIRST, expiresAt } });
  credentials.start();
  await clock.advance(HOUR_MS - 30_000);
  expect(credentials.cause()).toBeUndefined();
  await clock.advance(30_000);
  expect(credentials.cause()?.kind).toBe("credentials_expiring");
  expect(credentials.cause()?.message).toContain("PUT /machine/credentials");
  await clock.advance(HOUR_MS);
  expect(credentials.cause()?.kind).toBe("credentials_expired");
  // What has expired by our clock may still be good by the server's.
  expect(credentials.provide()).toMatchObject(FIRST);
  credentials.replace({ ...SECOND, expiresAt: clock.now() + 24 * HOUR_MS });
  expect(credentials.cause()).toBeUndefined();
  expect(types()).toEqual(["credentials_expiring", "credentials_expired", "credentials_renewed"]);
  expect(log.lines.filter(({ level }) => level === "warn" || level === "error")).toHaveLength(2);
  credentials.stop();
});

test("Credentials that were given hold until the file changes", async () => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  put(file, FIRST);
  const { credentials, clock } = set({ file });
  credentials.start();
  credentials.replace(SECOND);
  await clock.advance(60_000);
  expect(credentials.provide()).toMatchObject(SECOND);
  put(file, { ...FIRST, sessionToken: "third-token-0003" });
  await clock.advance(30_000);
  expect(credentials.provide().sessionToken).toBe("third-token-0003");
  credentials.stop();
});

test("Credentials warn once of a file that others can read", async () => {
  using dir = tempDir();
  const file = join(dir.path, "r2.json");
  put(file, FIRST);
  chmodSync(file, 0o640);
  const { credentials, clock, log } = set({ file, volume: dir.path });
  credentials.start();
  put(file, SECOND);
  chmodSync(file, 0o640);
  await clock.advance(60_000);
  credentials.stop();
  const warnings = log.lines.filter(({ level }) => level === "warn");
  expect(warnings).toHaveLength(1);
  expect(warnings[0]?.["reason"]).toContain("its mode is 0640");
  expect(warnings[0]?.["reason"]).toContain("it is on the volume");
});
