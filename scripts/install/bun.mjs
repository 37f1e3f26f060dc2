import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { matchesLock, npmCi } from "./npm.mjs";
import { InstallError, isExecutable, say } from "./step.mjs";

/**
 * Installs the project's packages, Bun among them, and resolves with { path, folder }: a Bun of
 * the version that package.json pins, and a folder for the PATH in which it is called `bun`. Does
 * nothing when they are there.
 */
export async function installBun(root, { signal } = {}) {
  const wanted = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies.bun;
  if (!matchesLock(root)) {
    say(`Installing the project's packages and Bun ${wanted} from npm into node_modules`);
    await npmCi(root, { what: "install the project's packages", signal });
  }
  if (versionOf(linked(root)) !== wanted) {
    // Bun's own install script, which npm did not run; it puts the binary behind node_modules/.bin/bun.
    spawnSync(process.execPath, ["install.js"], { cwd: join(root, "node_modules/bun") });
  }
  const tried = [linked(root), ...shipped(root)].map((path) => [path, versionOf(path)]);
  const match = tried.find(([, version]) => version === wanted);
  if (!match) {
    throw new InstallError(
      `Cannot run Bun ${wanted} on ${process.platform} ${process.arch}: ${tried.map(([path, version]) => `${path} says ${version ?? "nothing"}`).join(", ")}`,
      { advice: "Remove node_modules and run this again." },
    );
  }
  const path = match[0];
  return { path, folder: path === linked(root) ? join(root, "node_modules/.bin") : dirname(path) };
}

function linked(root) {
  return join(root, "node_modules/bun/bin/bun.exe");
}

function shipped(root) {
  const arch = process.arch === "arm64" ? "aarch64" : "x64";
  return ["", "-baseline", "-musl"].map((variant) =>
    join(root, `node_modules/@oven/bun-${process.platform}-${arch}${variant}/bin/bun`),
  );
}

function versionOf(path) {
  if (!isExecutable(path)) return undefined;
  // A folder of its own: a bunfig.toml or .env of the caller's folder has no say in this.
  return spawnSync(path, ["--version"], { cwd: "/", encoding: "utf8" }).stdout?.trim() || undefined;
}
