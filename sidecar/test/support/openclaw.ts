import { join } from "node:path";

import { findOpenclaw, type OpenclawProgram } from "../../src/gateway/openclaw-spec.ts";

const LOCAL = join(import.meta.dir, "../../../.local");

/** The pinned OpenClaw and its Node, as `npm test` installs them. Throws where they are not there. */
export function installedOpenclaw(): OpenclawProgram {
  try {
    return findOpenclaw(join(LOCAL, "openclaw"));
  } catch (error) {
    throw new Error('Cannot test with OpenClaw: it is not installed; run "npm test"', {
      cause: error,
    });
  }
}

/** Path of Caddy: the system's, or the one that `npm test` unpacks. Throws where there is none. */
export function installedCaddy(): string {
  const path = `${process.env["PATH"]}:/usr/bin:/usr/local/bin:${join(LOCAL, "caddy/usr/bin")}`;
  const caddy = Bun.which("caddy", { PATH: path });
  if (caddy === null)
    throw new Error('Cannot test with Caddy: it is not installed; run "npm test"');
  return caddy;
}
