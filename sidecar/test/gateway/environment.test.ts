import { expect, test } from "bun:test";

import {
  childEnvironment,
  modelSource,
  openclawEnvironment,
} from "../../src/gateway/environment.ts";

const options = { dataDir: "/data", port: 18_788 };

test.each([
  "R2_ACCESS_KEY_ID",
  "R2_SECRET_ACCESS_KEY",
  "R2_CREDENTIALS_FILE",
  "BACKUP_URL",
  "CONTROL_PLANE_TOKEN",
  "CONTROL_PLANE_URL",
  "MOLTBOT_SIGNING_SECRET",
  "SIGNING_SECRET",
  "SIDECAR_SOCKET",
  "INVOCATION_ID",
  "JOURNAL_STREAM",
  "SYSTEMD_EXEC_PID",
  "OPENCLAW_SYSTEMD_UNIT",
  "NOTIFY_SOCKET",
  "WATCHDOG_USEC",
  "NODE_COMPILE_CACHE",
  "OPENCLAW_PROFILE",
])("a child does not get %s", (name) => {
  expect(childEnvironment({ [name]: "value" }, options)).not.toHaveProperty(name);
});

test.each([
  "ANTHROPIC_API_KEY",
  "TELEGRAM_BOT_TOKEN",
  "BRAVE_API_KEY",
  "AWS_ACCESS_KEY_ID",
  "AUTOMNA_PROXY_URL",
  "FLY_MACHINE_ID",
  "TZ",
  "MY_R2_THING",
])("a child gets %s", (name) => {
  expect(childEnvironment({ [name]: "value" }, options)).toHaveProperty(name, "value");
});

test("a child's home is on the volume, and it has a PATH and its port", () => {
  expect(childEnvironment({ HOME: "/root", GATEWAY_PORT: "1" }, options)).toEqual({
    HOME: "/data/home",
    GATEWAY_PORT: "18788",
    PATH: expect.stringContaining("/usr/bin"),
  });
  expect(childEnvironment({ PATH: "/x" }, options)["PATH"]).toBe("/x");
});

test("a child that runs as another user is told its name", () => {
  const env = childEnvironment({ USER: "root" }, { ...options, userName: "agent" });
  expect(env).toMatchObject({ USER: "agent", LOGNAME: "agent" });
});

test("OpenClaw's paths, token and supervision are ours whatever was given", () => {
  const given = {
    OPENCLAW_STATE_DIR: "/elsewhere",
    OPENCLAW_NO_RESPAWN: "0",
    OPENCLAW_LOG_LEVEL: "debug",
    MOLTBOT_GATEWAY_TOKEN: "old-old-old",
  };
  expect(openclawEnvironment(given, { ...options, token: "token-token" })).toMatchObject({
    OPENCLAW_STATE_DIR: "/data/openclaw",
    OPENCLAW_CONFIG_PATH: "/data/openclaw/openclaw.json",
    OPENCLAW_GATEWAY_TOKEN: "token-token",
    OPENCLAW_GATEWAY_PORT: "18788",
    OPENCLAW_SUPERVISOR_MODE: "external",
    OPENCLAW_NO_RESPAWN: "1",
    OPENCLAW_DISABLE_BONJOUR: "1",
    OPENCLAW_NO_AUTO_UPDATE: "1",
    OPENCLAW_LOG_LEVEL: "debug",
  });
});

test.each([
  [{}, undefined],
  [{ AUTOMNA_PROXY_URL: "https://proxy.test/" }, "https://proxy.test/api/llm"],
  [{ AUTOMNA_PROXY_URL: "https://proxy.test", BYOK_MODE: "true" }, undefined],
  [{ AUTOMNA_PROXY_URL: "https://proxy.test", ANTHROPIC_BASE_URL: "https://own" }, "https://own"],
])("tools that speak to Anthropic are led to the proxy: %j", (given, expected) => {
  const env = openclawEnvironment(given, { ...options, token: "token-token" });
  expect(env["ANTHROPIC_BASE_URL"]).toBe(expected as string);
});

test.each([
  [{}, { kind: "unmanaged" }],
  [{ AUTOMNA_PROXY_URL: "no url" }, { kind: "unmanaged" }],
  [{ AUTOMNA_PROXY_URL: "file:///etc" }, { kind: "unmanaged" }],
  [{ AUTOMNA_PROXY_URL: "https://p.test//" }, { kind: "proxy", baseUrl: "https://p.test/api/llm" }],
  [{ AUTOMNA_PROXY_URL: "https://p.test", BYOK_MODE: "1" }, { kind: "own" }],
  [
    { AUTOMNA_PROXY_URL: "https://p.test", BYOK_MODE: "false" },
    { kind: "proxy", baseUrl: "https://p.test/api/llm" },
  ],
])("models come from where %j says", (given, expected) => {
  expect(modelSource(given)).toEqual(expected as ReturnType<typeof modelSource>);
});
