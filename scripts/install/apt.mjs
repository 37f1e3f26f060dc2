import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { findProgram, InstallError, run, say } from "./step.mjs";

/**
 * Installs Debian packages that bring the named programs, as { package: program }. Does nothing
 * when all programs are there. Needs root or a sudo that asks nothing; starts no service.
 */
export async function installPackages(programs, { why, signal } = {}) {
  const path = `${process.env.PATH}:/usr/sbin:/sbin`;
  const missing = Object.keys(programs).filter((name) => !findProgram(programs[name], path));
  if (missing.length === 0) return;
  say(`Installing ${missing.join(", ")} with apt (${why})`);
  const [command, ...before] = asRoot(missing);
  const apt = (args, what) =>
    run(command, [...before, "env", ...ENVIRONMENT, "apt-get", ...args], {
      what,
      signal,
      advice: `Run "apt-get install ${missing.join(" ")}" by hand to see more, then run this again.`,
    });
  const install = ["install", "--yes", "--no-install-recommends", ...missing];
  try {
    await apt(install, "install packages with apt");
  } catch (error) {
    if (!(error instanceof InstallError)) throw error;
    // No lists yet, or lists older than the archive.
    await apt(["update"], "update the package lists");
    await apt(install, "install packages with apt");
  }
}

/** Downloads one Debian package into the folder, as any user, leaving the system as it is. */
export async function downloadPackage(name, { root, folder, signal }) {
  const state = join(root, ".local/apt");
  mkdirSync(join(state, "lists/partial"), { recursive: true });
  mkdirSync(join(state, "archives/partial"), { recursive: true });
  const options = [
    `Dir::State::Lists=${join(state, "lists")}`,
    `Dir::Cache=${state}`,
    // The sandbox user could not write into a home folder that others cannot enter.
    `APT::Sandbox::User=root`,
  ].flatMap((option) => ["-o", option]);
  const download = (before) =>
    run("apt-get", [...before, "download", name], {
      what: `download Debian's ${name}`,
      cwd: folder,
      signal,
    });
  try {
    await download(["-o", "APT::Sandbox::User=root"]);
  } catch (error) {
    if (!(error instanceof InstallError)) throw error;
    await run("apt-get", [...options, "update"], { what: "read Debian's package lists", signal });
    await download(options);
  }
}

// Package scripts that start a service find a systemd that is "offline" and skip it.
const ENVIRONMENT = ["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1"];

function asRoot(missing) {
  if (process.getuid?.() === 0) return [];
  if (findProgram("sudo")) return ["sudo", "-n"];
  throw new InstallError(`Cannot install ${missing.join(", ")}: neither root nor sudo`, {
    advice: `Ask an administrator to run "apt-get install ${missing.join(" ")}", then run this again.`,
  });
}
