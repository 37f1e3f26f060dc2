import JSON5 from "json5";

import type { ModelSource } from "./environment.ts";

type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** What the machine knows and the gateway's config must say. */
export interface ManagedConfig {
  readonly port: number;
  /** Absolute path of the volume. */
  readonly dataDir: string;
  /** Exact origin of the control UI, such as https://example.fly.dev; undefined leaves the user's. */
  readonly publicOrigin: string | undefined;
  /** Exact origins whose pages may open the gateway's WebSocket; the public one is added. */
  readonly allowedOrigins: readonly string[];
  readonly models: ModelSource;
}

/** The provider that stands for our proxy, and the one its models have when the user brings a key. */
const PROXY_PROVIDER = "automna";
const OWN_PROVIDER = "anthropic";
const DEFAULT_MODEL = "claude-opus-5";
const PROXY_MODELS = [
  ["claude-opus-5", "Claude Opus 5"],
  ["claude-sonnet-5", "Claude Sonnet 5"],
  ["claude-opus-4-5", "Claude Opus 4.5"],
] as const;

/** JSON5 text as an object. Throws where it is not one; the message never quotes the text, which may hold secrets. */
export function parseConfigText(text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON5.parse<unknown>(text);
  } catch (cause) {
    const at = cause as { lineNumber?: number; columnNumber?: number };
    const where =
      at.lineNumber === undefined ? "" : ` at line ${at.lineNumber}, column ${at.columnNumber}`;
    throw new Error(`Cannot parse the gateway's config: no JSON5${where}`, { cause });
  }
  if (!isObject(value)) throw new Error("Cannot parse the gateway's config: no object");
  return value;
}

/**
 * The config for this boot: managed keys overwritten, defaults set where nothing is, the rest as it was. Returns a new
 * object, deeply equal to `config` where nothing had to change. Source: machine.md, Children.
 */
export function mergeConfig(config: JsonObject, managed: ManagedConfig): JsonObject {
  let merged = overwrite(withoutFatal(config), managedKeys(managed));
  if (managed.models.kind === "own") merged = withoutProxy(merged);
  if (managed.models.kind === "proxy") {
    merged = renameModels(merged, (model) =>
      model === `${OWN_PROVIDER}/${DEFAULT_MODEL}` ? `${PROXY_PROVIDER}/${DEFAULT_MODEL}` : model,
    );
  }
  return fill(merged, defaultKeys(managed));
}

function managedKeys(managed: ManagedConfig): JsonObject {
  const { port, dataDir, publicOrigin, allowedOrigins, models } = managed;
  const origins = [...new Set([...(publicOrigin ? [publicOrigin] : []), ...allowedOrigins])];
  return {
    gateway: {
      mode: "local",
      port,
      bind: "loopback",
      auth: { mode: "token" },
      trustedProxies: ["127.0.0.1", "::1"],
      ...(publicOrigin === undefined ? {} : { publicOrigin }),
      controlUi: { allowedOrigins: origins },
    },
    agents: { defaults: { workspace: `${dataDir}/workspace` } },
    logging: { file: `${dataDir}/openclaw/logs/gateway.log` },
    update: { checkOnStart: false },
    ...(models.kind === "proxy"
      ? {
          models: {
            providers: {
              [PROXY_PROVIDER]: {
                baseUrl: models.baseUrl,
                // By reference: the token itself would stand in a file that goes into the history.
                apiKey: "${OPENCLAW_GATEWAY_TOKEN}",
                api: "anthropic-messages",
              },
            },
          },
        }
      : {}),
  };
}

function defaultKeys({ models }: ManagedConfig): JsonObject {
  if (models.kind === "unmanaged") return {};
  const provider = models.kind === "proxy" ? PROXY_PROVIDER : OWN_PROVIDER;
  return {
    agents: { defaults: { model: { primary: `${provider}/${DEFAULT_MODEL}` } } },
    ...(models.kind === "proxy"
      ? { models: { providers: { [PROXY_PROVIDER]: { models: PROXY_MODELS.map(proxyModel) } } } }
      : {}),
  };
}

function proxyModel([id, name]: readonly [string, string]): JsonObject {
  return {
    id,
    name,
    reasoning: true,
    input: ["text", "image"],
    contextWindow: 200_000,
    maxTokens: 32_000,
  };
}

/** Drops what would contradict a managed key: a second token or password, and TLS on a port that Caddy speaks plain HTTP to. */
function withoutFatal(config: JsonObject): JsonObject {
  const { gateway } = config;
  if (!isObject(gateway)) return config;
  const { tls: _tls, ...rest } = gateway;
  if (!isObject(rest["auth"])) return { ...config, gateway: rest };
  const { token: _token, password: _password, ...auth } = rest["auth"];
  return { ...config, gateway: { ...rest, auth } };
}

/** With the user's own key the proxy's provider goes, and models that were reached through it are asked for directly. */
function withoutProxy(config: JsonObject): JsonObject {
  const direct = renameModels(config, (model) =>
    model.startsWith(`${PROXY_PROVIDER}/`)
      ? `${OWN_PROVIDER}${model.slice(PROXY_PROVIDER.length)}`
      : model,
  );
  const { models } = direct;
  if (!isObject(models) || !isObject(models["providers"])) return direct;
  const { [PROXY_PROVIDER]: _proxy, ...providers } = models["providers"];
  return { ...direct, models: { ...models, providers } };
}

/** Applies `rename` to the models that the agents' defaults and entries choose, and to nothing else. */
function renameModels(config: JsonObject, rename: (model: string) => string): JsonObject {
  const { agents } = config;
  if (!isObject(agents)) return config;
  const inAgent = (agent: Json | undefined): Json | undefined => {
    if (!isObject(agent)) return agent;
    const renamed = { ...agent };
    for (const key of ["model", "imageModel", "pdfModel", "utilityModel"]) {
      const value = agent[key];
      if (value !== undefined) renamed[key] = renameStrings(value, rename);
    }
    return renamed;
  };
  const renamed = { ...agents };
  const defaults = inAgent(agents["defaults"]);
  if (defaults !== undefined) renamed["defaults"] = defaults;
  if (isObject(agents["entries"])) {
    renamed["entries"] = Object.fromEntries(
      Object.entries(agents["entries"]).map(([id, entry]) => [id, inAgent(entry) ?? entry]),
    );
  }
  return { ...config, agents: renamed };
}

function renameStrings(value: Json, rename: (text: string) => string): Json {
  if (typeof value === "string") return rename(value);
  if (isArray(value)) return value.map((item) => renameStrings(item, rename));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, renameStrings(item, rename)]),
  );
}

/** `over` wins; objects are merged, everything else replaced whole. */
function overwrite(base: JsonObject, over: JsonObject): JsonObject {
  const merged: Record<string, Json> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const old = merged[key];
    merged[key] = isObject(value) ? overwrite(isObject(old) ? old : {}, value) : value;
  }
  return merged;
}

/** `base` wins; a default stands only where nothing is. */
function fill(base: JsonObject, defaults: JsonObject): JsonObject {
  const merged: Record<string, Json> = { ...base };
  for (const [key, value] of Object.entries(defaults)) {
    const old = merged[key];
    if (old === undefined) merged[key] = value;
    else if (isObject(old) && isObject(value)) merged[key] = fill(old, value);
  }
  return merged;
}

function isArray(value: unknown): value is readonly Json[] {
  return Array.isArray(value);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
