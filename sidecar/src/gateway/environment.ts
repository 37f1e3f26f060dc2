/** The environment as the sidecar was given it. */
type Environment = Readonly<Record<string, string | undefined>>;

/** What is the sidecar's own and no business of a child. Source: machine.md, Environment. */
const OURS = [/^R2_/, /^BACKUP_/, /^CONTROL_PLANE_/, /SIGNING_SECRET$/, /^SIDECAR_/];

/** Each makes a program believe that systemd runs it; OpenClaw would then hand restarts to a manager that is not there. */
const SYSTEMD = [
  /^(?:INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|MANAGERPID|CREDENTIALS_DIRECTORY)$/,
  /^SYSTEMD_/,
  /^(?:LISTEN|WATCHDOG)_(?:FDS|FDNAMES|PID|USEC)$/,
  /^OPENCLAW_SYSTEMD_UNIT$/,
];

/** What would lead a child away from what is set below, or put a launcher between us and the gateway. */
const MISLEADING = [
  /^NODE_COMPILE_CACHE$/,
  /^OPENCLAW_(?:HOME|PROFILE|CONFIG_READONLY|GATEWAY_PASSWORD|SUPERVISOR_MODE)$/,
  /^XDG_(?:CONFIG|DATA|CACHE|STATE)_HOME$/,
  /^XDG_RUNTIME_DIR$/,
];

const WITHHELD = [...OURS, ...SYSTEMD, ...MISLEADING];

export interface ChildEnvironmentOptions {
  /** Absolute path of the volume. */
  readonly dataDir: string;
  /** The port the child is to listen on. */
  readonly port: number;
  /** Name of the user it runs as, where that is not the sidecar's own. */
  readonly userName?: string | undefined;
}

/** What any command under supervision gets: everything that was given except what is ours, with its home on the volume. */
export function childEnvironment(
  given: Environment,
  options: ChildEnvironmentOptions,
): Record<string, string> {
  const { dataDir, port, userName } = options;
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined && !WITHHELD.some((pattern) => pattern.test(name))) env[name] = value;
  }
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ...env,
    HOME: `${dataDir}/home`,
    GATEWAY_PORT: String(port),
    ...(userName === undefined ? {} : { USER: userName, LOGNAME: userName }),
  };
}

/** What OpenClaw gets: as any child, and what makes it leave restarts, updates and its paths to us. */
export function openclawEnvironment(
  given: Environment,
  options: ChildEnvironmentOptions & { readonly token: string },
): Record<string, string> {
  const { dataDir, port, token } = options;
  const models = modelSource(given);
  return {
    // Tools that speak to Anthropic by themselves, and models under `anthropic/`, take the proxy too.
    ...(models.kind === "proxy" ? { ANTHROPIC_BASE_URL: models.baseUrl } : {}),
    ...childEnvironment(given, options),
    OPENCLAW_STATE_DIR: `${dataDir}/openclaw`,
    OPENCLAW_CONFIG_PATH: `${dataDir}/openclaw/openclaw.json`,
    OPENCLAW_GATEWAY_TOKEN: token,
    OPENCLAW_GATEWAY_PORT: String(port),
    OPENCLAW_SUPERVISOR_MODE: "external",
    OPENCLAW_NO_RESPAWN: "1",
    OPENCLAW_DISABLE_BONJOUR: "1",
    OPENCLAW_NO_AUTO_UPDATE: "1",
    OPENCLAW_SERVICE_REPAIR_POLICY: "external",
  };
}

/** Where the agent's models come from: our proxy, or wherever the user's own keys and config lead. */
export type ModelSource =
  | { readonly kind: "proxy"; readonly baseUrl: string }
  | { readonly kind: "own" }
  /** Neither was said: the config stays as it is. */
  | { readonly kind: "unmanaged" };

/** Reads `AUTOMNA_PROXY_URL` and `BYOK_MODE`. A URL that is none counts as not set: the gateway must start all the same. */
export function modelSource(given: Environment): ModelSource {
  if (/^(?:1|true|yes|on)$/i.test(given["BYOK_MODE"] ?? "")) return { kind: "own" };
  const url = given["AUTOMNA_PROXY_URL"] ?? "";
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) return { kind: "unmanaged" };
  return { kind: "proxy", baseUrl: `${url.replace(/\/+$/, "")}/api/llm` };
}
