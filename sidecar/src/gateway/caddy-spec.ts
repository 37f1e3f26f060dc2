import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import type { ChildProbe, ChildService, ChildUser } from "./child-service.ts";
import { holdPort } from "./held-port.ts";
import { getJson } from "./http-probe.ts";

const ADMISSION_TIMEOUT_MS = 30_000;
const LIVENESS = { everyMs: 10_000, timeoutMs: 3_000, misses: 3, graceMs: 30_000 };

/** Characters of Caddy's own words that a reason takes over. */
const MAX_REASON = 300;

export interface CaddyOptions {
  /** Program to run; found through PATH by default. */
  readonly caddy?: string;
  /** Absolute path of the Caddyfile of this repository or image; read anew before each start. */
  readonly caddyfile: string;
  /**
   * Absolute path of a folder that is ours alone to write and that Caddy's user can enter, such as /run/sidecar. Made
   * where it is missing. Caddy gets a copy of the Caddyfile there, because it may not be able to reach the original.
   */
  readonly runtimeDir: string;
  readonly ports: { readonly sidecar: number; readonly public: number; readonly gateway: number };
  /** Exact origin under which users reach this machine, where it is known. */
  readonly publicOrigin: string | undefined;
  readonly user?: ChildUser | undefined;
  /** PATH of the child. */
  readonly path: string;
}

/** Caddy as a service. Source: machine.md, Children. */
export function caddySpec(options: CaddyOptions): ChildService {
  const { caddy = "caddy", caddyfile, runtimeDir, ports, user, path } = options;
  const config = join(runtimeDir, "Caddyfile");
  const home = join(runtimeDir, "caddy");
  let held: Disposable | undefined;
  const answers: ChildProbe = async (_running, signal) => {
    const { status } = await getJson(ports.public, "/machine/livez", signal);
    return status === 200 ? undefined : `/machine/livez answers ${status}`;
  };
  return {
    name: "caddy",
    async launch() {
      // From before the first start on: whoever takes the port between two starts answers in our place.
      if (user) held ??= holdPort(ports.public, user);
      makeOurs(runtimeDir);
      mkdirSync(home, { recursive: true, mode: 0o700 });
      if (user) chownSync(home, user.uid, user.gid);
      replaceFile(config, readFileSync(caddyfile));
      const env = {
        PATH: path,
        HOME: home,
        XDG_CONFIG_HOME: join(home, "config"),
        XDG_DATA_HOME: join(home, "data"),
        PUBLIC_PORT: String(ports.public),
        SIDECAR_PORT: String(ports.sidecar),
        GATEWAY_PORT: String(ports.gateway),
        // The Caddyfile has one set of rules for each.
        REACH: isLoopback(options.publicOrigin) ? "loopback" : "public",
      };
      const command = [caddy, "run", "--config", config, "--adapter", "caddyfile"] as const;
      return { command, env, cwd: runtimeDir, user };
    },
    admission: { probe: answers, timeoutMs: ADMISSION_TIMEOUT_MS },
    liveness: { ...LIVENESS, probe: answers },
    async stop(running) {
      // Once: a second signal would make it drop its connections.
      running.signal("SIGTERM");
    },
    async judge(exit) {
      return exit.code === 1
        ? { kind: "failed", reason: `Caddy did not start: ${lastError(exit.lastLines)}` }
        : { kind: "backoff", reason: `exited with ${exit.signal ?? exit.code}` };
    },
  };
}

/** What Caddy said last about itself, such as that its port is taken. */
function lastError(lines: readonly string[]): string {
  const line = lines.findLast((text) => text.startsWith("Error: "));
  return line?.slice("Error: ".length, MAX_REASON) ?? "see its log";
}

/** True where users reach the machine from the machine itself: a local run. */
export function isLoopback(origin: string | undefined): boolean {
  if (origin === undefined || !URL.canParse(origin)) return false;
  const { hostname } = new URL(origin);
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.\d+){3}$/.test(hostname);
}

/** Makes the folder, and makes sure that nobody else can put a file into it. */
function makeOurs(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const stat = lstatSync(dir);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.()) {
    throw new Error(`Cannot use "${dir}" at run time: it is no folder of our own`);
  }
  chmodSync(dir, 0o755);
}

function replaceFile(path: string, content: Uint8Array): void {
  const temporary = `${path}.new`;
  const fd = openSync(temporary, "w", 0o644);
  try {
    for (let offset = 0; offset < content.length;) offset += writeSync(fd, content, offset);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
}
