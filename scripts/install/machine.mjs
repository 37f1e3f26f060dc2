import { dirname } from "node:path";

import { installBun } from "./bun.mjs";
import { installDebianProgram } from "./debian-program.mjs";
import { withoutNpmRun } from "./npm.mjs";
import { installOpenclaw } from "./openclaw.mjs";

/**
 * Installs all that a machine needs to run here and resolves with { bun, node, caddy,
 * openclawDir, path }: programs, OpenClaw's folder, and a PATH that finds bun, caddy and rg, and
 * nothing that npm added to it for the time of a run. `node` is OpenClaw's.
 */
export async function installMachine(root, { signal } = {}) {
  const bun = await installBun(root, { signal });
  const openclaw = await installOpenclaw(root, { signal });
  const caddy = await installDebianProgram(root, { package: "caddy", program: "caddy", signal });
  const ripgrep = await installDebianProgram(root, { package: "ripgrep", program: "rg", signal });
  const folders = [bun.folder, dirname(caddy), dirname(ripgrep), withoutNpmRun(process.env).PATH];
  return {
    bun: bun.path,
    node: openclaw.node,
    caddy,
    openclawDir: openclaw.folder,
    path: [...new Set(folders)].join(":"),
  };
}
