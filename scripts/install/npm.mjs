import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { run } from "./step.mjs";

/**
 * Installs exactly what the folder's lock file says. Install scripts are never run: npm may block
 * them anyway, so that every machine takes the one path that always works.
 */
export async function npmCi(folder, { what, signal, omitDev = false }) {
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--include=optional"];
  await npm([...args, omitDev ? "--omit=dev" : "--include=dev"], {
    what,
    cwd: folder,
    signal,
    advice: `Run "npm ci" in ${folder} by hand to see more, then run this again.`,
  });
}

/** Runs npm to its end and resolves with what it printed. */
export function npm(args, options) {
  const [command, ...before] = npmCommand();
  const quiet = ["--no-update-notifier", "--loglevel=error"];
  return run(command, [...before, ...args, ...quiet], {
    ...options,
    env: withoutNpmRun(process.env),
  });
}

/**
 * Whether the folder's node_modules holds what its lock file says, by npm's own record of the
 * tree, which npm writes last.
 */
export function matchesLock(folder) {
  const record = join(folder, "node_modules", ".package-lock.json");
  if (!existsSync(record)) return false;
  const wanted = readPackages(join(folder, "package-lock.json"));
  const found = readPackages(record);
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === "" || (found[path] ? found[path].version === entry.version : entry.optional),
  );
}

/** The environment without what `npm start` adds to it, above all the folder it runs in. */
export function withoutNpmRun(env) {
  const ours =
    /^(npm_(lifecycle|package|config_(local_prefix|global_prefix|noproxy|node_gyp))|npm_(command|execpath|node_execpath)$|INIT_CWD$|NODE$)/;
  const kept = Object.fromEntries(Object.entries(env).filter(([name]) => !ours.test(name)));
  const path = (env.PATH ?? "")
    .split(":")
    .filter((part) => !/node_modules\/\.bin$|node-gyp-bin$/.test(part));
  return { ...kept, PATH: path.join(":") };
}

function npmCommand() {
  const script = process.env.npm_execpath;
  return script?.endsWith(".js") && existsSync(script) ? [process.execPath, script] : ["npm"];
}

function readPackages(path) {
  return JSON.parse(readFileSync(path, "utf8")).packages ?? {};
}
