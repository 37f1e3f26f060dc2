import { expect, test } from "bun:test";

import { mergeConfig, parseConfigText, type JsonObject } from "../../src/gateway/config-merge.ts";

const managed = {
  port: 18_788,
  dataDir: "/data",
  publicOrigin: "https://one.test",
  allowedOrigins: ["https://dashboard.test"],
  models: { kind: "unmanaged" },
} as const;
const proxy = { kind: "proxy", baseUrl: "https://proxy.test/api/llm" } as const;

test("an empty config gets all that the machine knows", () => {
  expect(mergeConfig({}, managed)).toEqual({
    gateway: {
      mode: "local",
      port: 18_788,
      bind: "loopback",
      auth: { mode: "token" },
      trustedProxies: ["127.0.0.1", "::1"],
      publicOrigin: "https://one.test",
      controlUi: { allowedOrigins: ["https://one.test", "https://dashboard.test"] },
    },
    agents: { defaults: { workspace: "/data/workspace" } },
    logging: { file: "/data/openclaw/logs/gateway.log" },
    update: { checkOnStart: false },
  });
});

test("a merged config stays as it is", () => {
  for (const models of [managed.models, proxy, { kind: "own" } as const]) {
    const once = mergeConfig({ channels: { telegram: { enabled: true } } }, { ...managed, models });
    expect(mergeConfig(once, { ...managed, models })).toEqual(once);
  }
});

test("what the user configured is kept, and managed keys beside it are not", () => {
  const config: JsonObject = {
    gateway: { port: 1, bind: "lan", reload: { mode: "off" }, controlUi: { basePath: "/ui" } },
    channels: { telegram: { botToken: "secret" } },
    agents: { defaults: { workspace: "/root/clawd", userTimezone: "Europe/Rome" } },
    update: { channel: "beta" },
  };
  const copy = structuredClone(config);
  expect(mergeConfig(config, managed)).toMatchObject({
    gateway: { port: 18_788, bind: "loopback", reload: { mode: "off" } },
    channels: { telegram: { botToken: "secret" } },
    agents: { defaults: { workspace: "/data/workspace", userTimezone: "Europe/Rome" } },
    update: { channel: "beta", checkOnStart: false },
  });
  expect(config).toEqual(copy);
});

test("a second token, a password and TLS go: they contradict what is managed", () => {
  const merged = mergeConfig(
    {
      gateway: {
        tls: { enabled: true },
        auth: { mode: "password", token: "x", password: "y", rateLimit: { maxAttempts: 3 } },
      },
    },
    managed,
  );
  expect(merged["gateway"]).toMatchObject({ auth: { mode: "token" } });
  expect(merged["gateway"]).not.toHaveProperty("tls");
  expect(merged["gateway"]).toHaveProperty("auth", {
    mode: "token",
    rateLimit: { maxAttempts: 3 },
  });
});

test("without a public origin the user's own stays", () => {
  const config = { gateway: { publicOrigin: "https://mine.test" } };
  const merged = mergeConfig(config, { ...managed, publicOrigin: undefined });
  expect(merged["gateway"]).toHaveProperty("publicOrigin", "https://mine.test");
});

test("the proxy is a provider whose key is a reference, and the default model is behind it", () => {
  const merged = mergeConfig({}, { ...managed, models: proxy });
  expect(merged["models"]).toMatchObject({
    providers: {
      automna: {
        baseUrl: "https://proxy.test/api/llm",
        apiKey: "${OPENCLAW_GATEWAY_TOKEN}",
        api: "anthropic-messages",
      },
    },
  });
  expect(merged["agents"]).toMatchObject({
    defaults: { model: { primary: "automna/claude-opus-5" } },
  });
});

test("the proxy's address follows the environment, the user's models and choice stay", () => {
  const config = {
    models: {
      providers: {
        automna: { baseUrl: "https://old.test", models: [{ id: "m", name: "M" }] },
        openai: { baseUrl: "https://api.test" },
      },
    },
    agents: { defaults: { model: { primary: "openai/gpt" } } },
  };
  const merged = mergeConfig(config, { ...managed, models: proxy });
  expect(merged["models"]).toMatchObject({
    providers: {
      automna: { baseUrl: "https://proxy.test/api/llm", models: [{ id: "m", name: "M" }] },
      openai: { baseUrl: "https://api.test" },
    },
  });
  expect(merged["agents"]).toMatchObject({ defaults: { model: { primary: "openai/gpt" } } });
});

test("with the user's own key the provider goes and its models are asked for directly", () => {
  const config = {
    models: { providers: { automna: { baseUrl: "https://old.test" }, openai: {} } },
    agents: {
      defaults: { model: { primary: "automna/a", fallbacks: ["openai/b", "automna/c"] } },
      entries: { main: { model: "automna/d", workspace: "automna/kept" } },
    },
    channels: { note: "automna/kept" },
  };
  const merged = mergeConfig(config, { ...managed, models: { kind: "own" } });
  expect(merged["models"]).toEqual({ providers: { openai: {} } });
  expect(merged["agents"]).toMatchObject({
    defaults: { model: { primary: "anthropic/a", fallbacks: ["openai/b", "anthropic/c"] } },
    entries: { main: { model: "anthropic/d", workspace: "automna/kept" } },
  });
  expect(merged["channels"]).toEqual({ note: "automna/kept" });
});

test("going to one's own key and back leaves a model that exists", () => {
  const proxied = mergeConfig({}, { ...managed, models: proxy });
  const own = mergeConfig(proxied, { ...managed, models: { kind: "own" } });
  expect(own["agents"]).toMatchObject({
    defaults: { model: { primary: "anthropic/claude-opus-5" } },
  });
  expect(mergeConfig(own, { ...managed, models: proxy })["agents"]).toEqual(
    proxied["agents"] as never,
  );
});

test.each([
  ["gateway", "text"],
  ["agents", ["list"]],
  ["models", null],
])("a %s of the wrong shape is replaced where it is managed", (key, value) => {
  const merged = mergeConfig({ [key]: value }, { ...managed, models: proxy });
  expect(merged[key]).toBeObject();
});

test("a config is JSON5", () => {
  expect(parseConfigText("{ // mine\n gateway: { port: 1, }, }")).toEqual({ gateway: { port: 1 } });
});

test.each([
  ["{ token: 'very-secret', ", /no JSON5 at line 1/],
  ["", /no JSON5/],
  ["[]", /no object/],
  ["null", /no object/],
  ['"very-secret"', /no object/],
])("%j is no config, and the error does not quote it", (text, message) => {
  expect(() => parseConfigText(text)).toThrow(message);
  expect(() => parseConfigText(text)).not.toThrow(/secret/);
});

test("keys that are special to JavaScript are only keys", () => {
  const merged = mergeConfig(parseConfigText('{"__proto__": {"port": 5}}'), managed);
  expect(({} as Record<string, unknown>)["port"]).toBeUndefined();
  expect(merged["gateway"]).toHaveProperty("port", 18_788);
});
