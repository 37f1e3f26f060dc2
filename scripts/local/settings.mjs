import { createHash, randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { withoutNpmRun } from "../install/npm.mjs";

const MAX_SOCKET_PATH_BYTES = 100;

/**
 * The environment of a local machine that keeps everything under `home`: embedded defaults under whatever the caller's environment
 * sets, over that only what must be so on a developer's computer.
 */
export function localEnvironment(home, { ports, machine, env }) {
  mkdirSync(join(home, "data"), { recursive: true, mode: 0o755 });
  mkdirSync(join(home, "store"), { recursive: true });
  return {
    USER_ID: "local",
    OPENCLAW_GATEWAY_TOKEN: keepToken(join(home, "token"), env.OPENCLAW_GATEWAY_TOKEN),
    DATA_DIR: join(home, "data"),
    BACKUP_URL: pathToFileURL(join(home, "store")).href,
    PUBLIC_ORIGIN: `http://127.0.0.1:${ports.PUBLIC_PORT}`,
    SIDECAR_RUNTIME_DIR: join(home, "run"),
    SIDECAR_SOCKET: socketPath(join(home, "sidecar.sock")),
    ...withoutNpmRun(env),
    PORT: String(ports.PORT),
    PUBLIC_PORT: String(ports.PUBLIC_PORT),
    GATEWAY_PORT: String(ports.GATEWAY_PORT),
    SIDECAR_OPENCLAW_DIR: machine.openclawDir,
    // A user of our names may exist here (Debian's caddy makes one) and could not enter this folder.
    SIDECAR_DROP_PRIVILEGES: "off",
    PATH: machine.path,
  };
}

/** The token of this machine, the caller's where there is one, in a file for the commands that need it. */
function keepToken(path, given) {
  const known = readToken(path);
  const token = given || known || randomBytes(24).toString("hex");
  if (token !== known) writeFileSync(path, `${token}\n`, { mode: 0o600 });
  chmodSync(path, 0o600);
  return token;
}

function readToken(path) {
  try {
    const token = readFileSync(path, "utf8").trim();
    return token.length >= 8 ? token : undefined;
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    return undefined;
  }
}

/** The kernel takes 107 bytes for a socket's path; a deep clone gets a place in the temporary folder. */
function socketPath(wanted) {
  if (Buffer.byteLength(wanted) <= MAX_SOCKET_PATH_BYTES) return wanted;
  const name = createHash("sha256").update(wanted).digest("hex").slice(0, 16);
  return join(tmpdir(), `sidecar-${name}.sock`);
}
