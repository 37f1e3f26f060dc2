import { mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

import { downloadPackage } from "./apt.mjs";
import { findProgram, InstallError, isExecutable, run, say } from "./step.mjs";

/**
 * Resolves with the path of a program: the one on the PATH, else Debian's, unpacked into
 * .local/<package>. Unpacked and not installed, so that no root is needed, no service starts on
 * the ports we want, and no user `caddy` appears on somebody's machine. For packages whose
 * libraries every Debian has.
 */
export async function installDebianProgram(root, { package: name, program, signal }) {
  const folder = join(root, ".local", name);
  const unpacked = join(folder, "usr/bin", program);
  const found = findProgram(program) ?? (isExecutable(unpacked) ? unpacked : undefined);
  if (found) return found;
  if (!findProgram("apt-get")) {
    throw new InstallError(`Cannot install ${name}: this is not a Debian machine (no apt-get)`, {
      advice: `Install ${name} so that \`${program}\` is on the PATH, then run this again.`,
    });
  }
  say(`Unpacking Debian's ${name} into .local/${name}`);
  const staging = `${folder}.partial`;
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  await downloadPackage(name, { root, folder: staging, signal });
  const file = readdirSync(staging).find((entry) => entry.endsWith(".deb"));
  await run("dpkg", ["-x", file, staging], { what: `unpack ${name}`, cwd: staging, signal });
  rmSync(join(staging, file));
  rmSync(folder, { recursive: true, force: true });
  renameSync(staging, folder);
  return unpacked;
}
