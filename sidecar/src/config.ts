import { z } from "zod";

/** Everything the machine is told from outside, parsed once. Names and defaults: README.md, Configuration. */
export interface Config {
  readonly userId: string;
  /** Bearer for /files, /machine and the gateway. */
  readonly token: string;
  /** Key of signed URLs; undefined accepts none. */
  readonly signingSecret: string | undefined;
  readonly dataDir: string;
  readonly backup: BackupConfig | undefined;
  readonly controlPlane: { readonly url: string; readonly token: string } | undefined;
  readonly ports: { readonly sidecar: number; readonly public: number; readonly gateway: number };
  readonly gateway: {
    /** Another command to supervise as the gateway; undefined is the pinned OpenClaw. */
    readonly command: readonly [string, ...string[]] | undefined;
    /** Folder whose node_modules holds the pinned OpenClaw and its Node. */
    readonly openclawDir: string;
    /** MiB of JavaScript heap; undefined is 60 % of the machine's memory. */
    readonly heapMb: number | undefined;
  };
  /** Exact origin under which users reach this machine; undefined where nobody said. */
  readonly publicOrigin: string | undefined;
  /** Exact origins whose pages may call /files. */
  readonly dashboardOrigins: readonly string[];
  /** Milliseconds from the first signal until the platform cuts the machine off. */
  readonly killTimeoutMs: number;
  /** False keeps every child under the sidecar's own user, also where `agent` and `caddy` exist. */
  readonly dropPrivileges: boolean;
  /** Path of the root-only socket. */
  readonly socket: string;
  /** Folder off the volume for what lives as long as this boot. */
  readonly runtimeDir: string;
  readonly logLevel: "debug" | "info" | "warn" | "error";
  /** Things that are allowed and probably not meant, one sentence each. */
  readonly warnings: readonly string[];
}

interface BackupConfig {
  /** The store's root: s3://bucket[/prefix] or file:///path. */
  readonly url: string;
  readonly fence: boolean;
  readonly onDiverged: "forward" | "halt";
  readonly s3: {
    readonly endpoint: string | undefined;
    readonly region: string;
    readonly credentials:
      | {
          readonly accessKeyId: string;
          readonly secretAccessKey: string;
          readonly sessionToken: string | undefined;
        }
      | undefined;
    /** Absolute path of a file with credentials that are renewed. */
    readonly credentialsFile: string | undefined;
  };
}

/** The environment cannot be used. The message names every variable at fault and never shows a value. */
export class ConfigError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(
      `Cannot start: ${faults.length} ${faults.length === 1 ? "fault" : "faults"} in the environment: ${faults.join("; ")}`,
    );
    this.name = "ConfigError";
    this.faults = faults;
  }
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Other names under which a variable is accepted, in order. Source: machine.md, Environment. */
const ALIASES: Readonly<Record<string, readonly string[]>> = {
  USER_ID: ["MOLTBOT_USER_ID"],
  OPENCLAW_GATEWAY_TOKEN: ["CLAWDBOT_GATEWAY_TOKEN", "MOLTBOT_GATEWAY_TOKEN"],
  MOLTBOT_SIGNING_SECRET: ["SIGNING_SECRET"],
  R2_ACCOUNT_ID: ["CF_ACCOUNT_ID"],
};

/** Seconds below which the platform's time to stop is too short to be useful at all, and to drain a turn. */
const KILL_TIMEOUT = { min: 30, advised: 110, max: 86_400 };

const port = (fallback: number) =>
  z
    .string()
    .regex(/^\d{1,5}$/, "must be a port from 1 to 65535")
    .transform(Number)
    .pipe(
      z
        .int()
        .min(1, "must be a port from 1 to 65535")
        .max(65_535, "must be a port from 1 to 65535"),
    )
    .default(fallback);
const origin = z
  .string()
  .refine(isOrigin, "must be an origin such as https://example.com, without a path");
const onOff = z.enum(["on", "off"], { error: 'must be "on" or "off"' });

const schema = z.object({
  USER_ID: z
    .string({ error: "is required" })
    .regex(/^[A-Za-z0-9_-]{1,128}$/, "must be 1 to 128 of A-Z a-z 0-9 _ -"),
  OPENCLAW_GATEWAY_TOKEN: z
    .string({ error: "is required" })
    .min(8, "must have at least 8 characters")
    .regex(/^[\x21-\x7e]+$/, "must be printable ASCII without spaces"),
  MOLTBOT_SIGNING_SECRET: z.string().min(8, "must have at least 8 characters").optional(),
  DATA_DIR: z.string().startsWith("/", "must be an absolute path").default("/data"),
  BACKUP_URL: z
    .string()
    .refine(isStoreUrl, "must be s3://bucket[/prefix], file:///path or off")
    .optional(),
  BACKUP_FENCE: onOff.default("on"),
  ON_DIVERGED: z
    .enum(["forward", "halt"], { error: 'must be "forward" or "halt"' })
    .default("forward"),
  R2_ACCOUNT_ID: z
    .string()
    .regex(/^[A-Za-z0-9]{1,64}$/, "must be letters and digits")
    .optional(),
  R2_ACCESS_KEY_ID: z.string().optional(),
  R2_SECRET_ACCESS_KEY: z.string().optional(),
  R2_SESSION_TOKEN: z.string().optional(),
  R2_CREDENTIALS_FILE: z.string().startsWith("/", "must be an absolute path").optional(),
  R2_BUCKET: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, "must be a bucket name")
    .optional(),
  R2_ENDPOINT: z.string().refine(isHttpUrl, "must be an http or https URL").optional(),
  R2_REGION: z
    .string()
    .regex(/^[a-z0-9-]+$/, "must be a region name")
    .default("auto"),
  CONTROL_PLANE_URL: z.string().refine(isHttpUrl, "must be an http or https URL").optional(),
  CONTROL_PLANE_TOKEN: z.string().min(1).optional(),
  PORT: port(8080),
  PUBLIC_PORT: port(18_789),
  GATEWAY_PORT: port(18_788),
  GATEWAY_COMMAND: z.string().transform(parseCommand).optional(),
  GATEWAY_HEAP_MB: z
    .string()
    .regex(/^\d{2,6}$/, "must be a number of MiB")
    .transform(Number)
    .optional(),
  SIDECAR_OPENCLAW_DIR: z
    .string()
    .startsWith("/", "must be an absolute path")
    .default("/opt/openclaw"),
  FLY_APP_NAME: z.string().optional(),
  PUBLIC_ORIGIN: origin.optional(),
  DASHBOARD_ORIGINS: z
    .string()
    .transform((list) =>
      list
        .split(",")
        .map((item) => item.trim())
        .filter(Boolean),
    )
    .pipe(z.array(origin))
    .default(["https://automna.ai"]),
  KILL_TIMEOUT_S: z
    .string()
    .regex(/^\d{1,5}$/, "must be a number of seconds")
    .transform(Number)
    .pipe(
      z.int().min(KILL_TIMEOUT.min, `must be at least ${KILL_TIMEOUT.min}`).max(KILL_TIMEOUT.max),
    )
    .default(120),
  SIDECAR_DROP_PRIVILEGES: onOff.default("on"),
  SIDECAR_SOCKET: z
    .string()
    .startsWith("/", "must be an absolute path")
    .default("/run/sidecar.sock"),
  SIDECAR_RUNTIME_DIR: z
    .string()
    .startsWith("/", "must be an absolute path")
    .default("/run/sidecar"),
  SIDECAR_LOG_LEVEL: z
    .enum(["debug", "info", "warn", "error"], { error: "must be debug, info, warn or error" })
    .default("info"),
});
type Variables = z.infer<typeof schema>;

/** Throws ConfigError with every fault at once. An empty variable counts as one that is not set. */
export function parseConfig(environment: Environment): Config {
  const result = schema.safeParse(withAliases(environment));
  const faults = result.success
    ? findContradictions(result.data)
    : result.error.issues.map((issue) => `${String(issue.path[0])} ${issue.message}`);
  if (!result.success || faults.length > 0) throw new ConfigError([...new Set(faults)]);
  const env = result.data;
  return {
    userId: env.USER_ID,
    token: env.OPENCLAW_GATEWAY_TOKEN,
    signingSecret: env.MOLTBOT_SIGNING_SECRET,
    dataDir: env.DATA_DIR,
    backup: backupConfig(env),
    controlPlane:
      env.CONTROL_PLANE_URL === undefined
        ? undefined
        : {
            url: env.CONTROL_PLANE_URL.replace(/\/+$/, ""),
            token: env.CONTROL_PLANE_TOKEN ?? env.OPENCLAW_GATEWAY_TOKEN,
          },
    ports: { sidecar: env.PORT, public: env.PUBLIC_PORT, gateway: env.GATEWAY_PORT },
    gateway: {
      command: env.GATEWAY_COMMAND,
      openclawDir: env.SIDECAR_OPENCLAW_DIR,
      heapMb: env.GATEWAY_HEAP_MB,
    },
    publicOrigin:
      env.PUBLIC_ORIGIN ??
      (env.FLY_APP_NAME === undefined ? undefined : `https://${env.FLY_APP_NAME}.fly.dev`),
    dashboardOrigins: env.DASHBOARD_ORIGINS,
    killTimeoutMs: env.KILL_TIMEOUT_S * 1_000,
    dropPrivileges: env.SIDECAR_DROP_PRIVILEGES === "on",
    socket: env.SIDECAR_SOCKET,
    runtimeDir: env.SIDECAR_RUNTIME_DIR,
    logLevel: env.SIDECAR_LOG_LEVEL,
    warnings: findWarnings(env),
  };
}

/** The values that must never leave the process. */
export function secretsOf(environment: Environment): string[] {
  const secret = /(?:TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY_ID|SECRET_ACCESS_KEY|PRIVATE_KEY)$/;
  return Object.entries(environment)
    .filter(([name, value]) => secret.test(name) && value !== undefined && value.length >= 8)
    .map(([, value]) => value ?? "");
}

function withAliases(environment: Environment): Record<string, string> {
  const set: Record<string, string> = {};
  for (const name of Object.keys(schema.shape)) {
    const value = [name, ...(ALIASES[name] ?? [])].map((key) => environment[key]).find(Boolean);
    if (value !== undefined) set[name] = value;
  }
  return set;
}

function findContradictions(env: Variables): string[] {
  const faults: string[] = [];
  if ((env.R2_ACCESS_KEY_ID === undefined) !== (env.R2_SECRET_ACCESS_KEY === undefined)) {
    faults.push(
      env.R2_ACCESS_KEY_ID === undefined
        ? "R2_ACCESS_KEY_ID is required where R2_SECRET_ACCESS_KEY is set"
        : "R2_SECRET_ACCESS_KEY is required where R2_ACCESS_KEY_ID is set",
    );
  }
  const url = storeUrl(env);
  if (url?.startsWith("s3://")) {
    if (env.R2_ACCESS_KEY_ID === undefined && env.R2_CREDENTIALS_FILE === undefined)
      faults.push("R2_ACCESS_KEY_ID or R2_CREDENTIALS_FILE is required for a store in S3");
    if (env.R2_ENDPOINT === undefined && env.R2_ACCOUNT_ID === undefined) {
      faults.push("R2_ENDPOINT or R2_ACCOUNT_ID is required for a store in S3");
    }
  } else if (env.BACKUP_URL === undefined && env.R2_ACCESS_KEY_ID !== undefined) {
    faults.push("R2_BUCKET or BACKUP_URL is required where R2_ACCESS_KEY_ID is set");
  }
  const ports = [env.PORT, env.PUBLIC_PORT, env.GATEWAY_PORT];
  if (new Set(ports).size < ports.length)
    faults.push("PORT, PUBLIC_PORT and GATEWAY_PORT must differ");
  return faults;
}

function findWarnings(env: Variables): string[] {
  const warnings: string[] = [];
  if (env.KILL_TIMEOUT_S < KILL_TIMEOUT.advised) {
    warnings.push(
      `KILL_TIMEOUT_S is below ${KILL_TIMEOUT.advised}: a running turn may be cut off when the machine stops`,
    );
  }
  if (storeUrl(env) === undefined)
    warnings.push("No store is configured: nothing on the volume is backed up");
  if (env.BACKUP_FENCE === "off")
    warnings.push(
      "BACKUP_FENCE is off: two machines of one user can overwrite each other's history",
    );
  return warnings;
}

function backupConfig(env: Variables): BackupConfig | undefined {
  const url = storeUrl(env);
  if (url === undefined) return undefined;
  const { R2_ACCESS_KEY_ID: accessKeyId, R2_SECRET_ACCESS_KEY: secretAccessKey } = env;
  return {
    url,
    fence: env.BACKUP_FENCE === "on",
    onDiverged: env.ON_DIVERGED,
    s3: {
      endpoint:
        env.R2_ENDPOINT ??
        (env.R2_ACCOUNT_ID && `https://${env.R2_ACCOUNT_ID}.r2.cloudflarestorage.com`),
      region: env.R2_REGION,
      credentials:
        accessKeyId === undefined || secretAccessKey === undefined
          ? undefined
          : { accessKeyId, secretAccessKey, sessionToken: env.R2_SESSION_TOKEN },
      credentialsFile: env.R2_CREDENTIALS_FILE,
    },
  };
}

/** The configured store, from BACKUP_URL or else the bucket; undefined where the backup is off. */
function storeUrl(env: Variables): string | undefined {
  if (env.BACKUP_URL === "off") return undefined;
  return env.BACKUP_URL ?? (env.R2_BUCKET === undefined ? undefined : `s3://${env.R2_BUCKET}`);
}

function parseCommand(value: string, context: z.RefinementCtx): readonly [string, ...string[]] {
  const parsed = z.tuple([z.string().min(1)], z.string()).safeParse(parseJson(value));
  if (parsed.success) return parsed.data;
  context.addIssue('must be a JSON array of strings such as ["node","server.js"]');
  return z.NEVER;
}

function parseJson(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

function isOrigin(value: string): boolean {
  return URL.canParse(value) && new URL(value).origin === value;
}

function isHttpUrl(value: string): boolean {
  return URL.canParse(value) && ["http:", "https:"].includes(new URL(value).protocol);
}

function isStoreUrl(value: string): boolean {
  return (
    value === "off" ||
    /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:\/[A-Za-z0-9._/-]*)?$/.test(value) ||
    /^file:\/\/\/./.test(value)
  );
}
