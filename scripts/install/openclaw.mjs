import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { npmCi } from "./npm.mjs";
import { InstallError, isExecutable, run, say } from "./step.mjs";

/**
 * Installs the pinned OpenClaw and its Node from container/openclaw into .local/openclaw and
 * resolves with { folder, entry, node }. Does nothing when this lock file was installed before;
 * the stamp is written last, so that an interrupted install is done again.
 */
export async function installOpenclaw(root, { signal } = {}) {
  const source = join(root, "container/openclaw");
  const folder = join(root, ".local/openclaw");
  const installed = {
    folder,
    entry: join(folder, "node_modules/openclaw/openclaw.mjs"),
    node: join(folder, `node_modules/node-linux-${process.arch}/bin/node`),
  };
  const stamp = join(folder, ".installed");
  const wanted = hashOf(["package.json", "package-lock.json"].map((name) => join(source, name)));
  if (readIfThere(stamp) === wanted && isExecutable(installed.node)) return installed;

  const { version } = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
  say(`Installing OpenClaw ${version} and its Node from npm into .local/openclaw (about 800 MB)`);
  rmSync(stamp, { force: true });
  mkdirSync(folder, { recursive: true });
  for (const name of ["package.json", "package-lock.json"]) {
    copyFileSync(join(source, name), join(folder, name));
  }
  await npmCi(folder, { what: "install OpenClaw", signal, omitDev: true });
  if (!isExecutable(installed.node)) {
    throw new InstallError(
      `Cannot install OpenClaw's Node: the lock file has none for ${process.platform} ${process.arch}`,
    );
  }
  // The first command of any kind completes the package; done here, the gateway needs no right to write to it.
  await run(installed.node, [installed.entry, "--version"], {
    what: "run OpenClaw once",
    cwd: folder,
    signal,
    advice: "Remove .local/openclaw and run this again.",
  });
  writeFileSync(stamp, wanted);
  return installed;
}

function hashOf(paths) {
  const hash = createHash("sha256");
  for (const path of paths) hash.update(readFileSync(path)).update("\0");
  return hash.digest("hex");
}

function readIfThere(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
