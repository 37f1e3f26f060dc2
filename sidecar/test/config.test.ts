import { expect, test } from "bun:test";

import { ConfigError, parseConfig, secretsOf } from "../src/config.ts";

const MINIMAL = { USER_ID: "u1", OPENCLAW_GATEWAY_TOKEN: "token-token" };

function faultsOf(environment: Record<string, string>): readonly string[] {
  try {
    parseConfig(environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

test("parseConfig() needs a user and a token, and has defaults for the rest", () => {
  expect(parseConfig(MINIMAL)).toMatchObject({
    userId: "u1",
    token: "token-token",
    signingSecret: undefined,
    dataDir: "/data",
    backup: undefined,
    controlPlane: undefined,
    ports: { sidecar: 8080, public: 18_789, gateway: 18_788 },
    dashboardOrigins: ["https://automna.ai"],
    killTimeoutMs: 120_000,
    dropPrivileges: true,
  });
});

test("parseConfig() lists every fault at once", () => {
  const faults = faultsOf({
    PORT: "99999",
    BACKUP_URL: "ftp://x",
    KILL_TIMEOUT_S: "5",
    USER_ID: "a/b",
  });
  expect(faults.map((fault) => fault.split(" ")[0])).toEqual([
    "USER_ID",
    "OPENCLAW_GATEWAY_TOKEN",
    "BACKUP_URL",
    "PORT",
    "KILL_TIMEOUT_S",
  ]);
});

test.each([
  ["USER_ID", "../other"],
  ["USER_ID", "x".repeat(129)],
  ["OPENCLAW_GATEWAY_TOKEN", "short12"],
  ["OPENCLAW_GATEWAY_TOKEN", "with a space in it"],
  ["MOLTBOT_SIGNING_SECRET", "short12"],
  ["DATA_DIR", "relative/path"],
  ["BACKUP_URL", "s3://UPPER"],
  ["BACKUP_URL", "file:relative"],
  ["BACKUP_FENCE", "maybe-so"],
  ["ON_DIVERGED", "whatever"],
  ["R2_ACCOUNT_ID", "evil.example.com/"],
  ["R2_ENDPOINT", "not-a-url"],
  ["CONTROL_PLANE_URL", "file:///etc/passwd"],
  ["PORT", "0"],
  ["PORT", "eighty-eighty"],
  ["GATEWAY_COMMAND", "node server.js"],
  ["GATEWAY_COMMAND", "[]"],
  ["GATEWAY_COMMAND", '["node", 1]'],
  ["GATEWAY_HEAP_MB", "lots-of-it"],
  ["PUBLIC_ORIGIN", "https://x.example/path"],
  ["DASHBOARD_ORIGINS", "https://ok.example,nonsense"],
  ["KILL_TIMEOUT_S", "29"],
])("parseConfig() refuses %s = %s, naming the variable and not the value", (name, value) => {
  const faults = faultsOf({ ...MINIMAL, [name]: value });
  expect(faults).toHaveLength(1);
  expect(faults[0]).toStartWith(`${name} `);
  expect(faults[0]).not.toContain(value);
});

test("parseConfig() treats an empty variable as one that is not set", () => {
  expect(
    parseConfig({ ...MINIMAL, MOLTBOT_SIGNING_SECRET: "", PORT: "" }).signingSecret,
  ).toBeUndefined();
});

test.each([
  ["USER_ID", "MOLTBOT_USER_ID", "u2"],
  ["OPENCLAW_GATEWAY_TOKEN", "CLAWDBOT_GATEWAY_TOKEN", "another-token"],
  ["OPENCLAW_GATEWAY_TOKEN", "MOLTBOT_GATEWAY_TOKEN", "another-token"],
])("parseConfig() takes %s from %s as well", (name, alias, value) => {
  const { [name as keyof typeof MINIMAL]: _, ...rest } = MINIMAL;
  const config = parseConfig({ ...rest, [alias]: value });
  expect([config.userId, config.token]).toContain(value);
});

test("parseConfig() prefers the new name over the old ones", () => {
  expect(parseConfig({ ...MINIMAL, MOLTBOT_USER_ID: "old" }).userId).toBe("u1");
});

const KEYS = { R2_ACCESS_KEY_ID: "key-key-key", R2_SECRET_ACCESS_KEY: "secret-secret" };

test.each([
  [{ BACKUP_URL: "file:///store" }, "file:///store"],
  [{ BACKUP_URL: "off", ...KEYS, R2_BUCKET: "bucket", R2_ACCOUNT_ID: "abc" }, undefined],
  [{ ...KEYS, R2_BUCKET: "bucket", R2_ACCOUNT_ID: "abc" }, "s3://bucket"],
  [
    { ...KEYS, BACKUP_URL: "s3://other/pre/fix", R2_ENDPOINT: "http://127.0.0.1:1" },
    "s3://other/pre/fix",
  ],
  [{ R2_ACCOUNT_ID: "abc" }, undefined],
])("parseConfig() finds the store in %j", (environment, url) => {
  expect(parseConfig({ ...MINIMAL, ...environment }).backup?.url).toBe(url);
});

test("parseConfig() makes R2's endpoint from the account, unless one is given", () => {
  const base = { ...MINIMAL, ...KEYS, R2_BUCKET: "bucket", R2_ACCOUNT_ID: "abc" };
  expect(parseConfig(base).backup?.s3.endpoint).toBe("https://abc.r2.cloudflarestorage.com");
  expect(parseConfig({ ...base, R2_ENDPOINT: "http://x.test" }).backup?.s3.endpoint).toBe(
    "http://x.test",
  );
});

test("parseConfig() needs no keys where a file holds them", () => {
  const environment = {
    ...MINIMAL,
    BACKUP_URL: "s3://bucket",
    R2_ACCOUNT_ID: "abc",
    R2_CREDENTIALS_FILE: "/run/r2.json",
  };
  expect(parseConfig(environment).backup?.s3).toMatchObject({
    credentials: undefined,
    credentialsFile: "/run/r2.json",
  });
  expect(faultsOf({ ...environment, R2_CREDENTIALS_FILE: "r2.json" })).toHaveLength(1);
});

test.each([
  [{ R2_ACCESS_KEY_ID: "key-key-key" }, "R2_SECRET_ACCESS_KEY is required"],
  [{ R2_SECRET_ACCESS_KEY: "secret-secret" }, "R2_ACCESS_KEY_ID is required"],
  [{ ...KEYS, R2_BUCKET: "bucket" }, "R2_ENDPOINT or R2_ACCOUNT_ID is required"],
  [
    { BACKUP_URL: "s3://bucket", R2_ACCOUNT_ID: "abc" },
    "R2_ACCESS_KEY_ID or R2_CREDENTIALS_FILE is required",
  ],
  [{ ...KEYS }, "R2_BUCKET or BACKUP_URL is required"],
  [{ PORT: "18789" }, "PORT, PUBLIC_PORT and GATEWAY_PORT must differ"],
])("parseConfig() sees the contradiction in %j", (environment, fault) => {
  expect(faultsOf({ ...MINIMAL, ...environment }).join("; ")).toContain(fault);
});

test("parseConfig() warns of a short time to stop and of a machine without backup", () => {
  const { warnings } = parseConfig({ ...MINIMAL, KILL_TIMEOUT_S: "60" });
  expect(warnings.join("\n")).toContain("KILL_TIMEOUT_S is below 110");
  expect(warnings.join("\n")).toContain("nothing on the volume is backed up");
});

test("parseConfig() derives the public origin from Fly's app name", () => {
  expect(parseConfig({ ...MINIMAL, FLY_APP_NAME: "my-app" }).publicOrigin).toBe(
    "https://my-app.fly.dev",
  );
  expect(parseConfig(MINIMAL).publicOrigin).toBeUndefined();
});

test("secretsOf() finds credentials by the names of their variables", () => {
  const secrets = secretsOf({
    ...MINIMAL,
    ...KEYS,
    ANTHROPIC_API_KEY: "sk-ant-12345",
    PATH: "/usr/bin",
    PORT: "8080",
  });
  expect(secrets.sort()).toEqual(["key-key-key", "secret-secret", "sk-ant-12345", "token-token"]);
});
