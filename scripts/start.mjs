import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { installMachine } from "./install/machine.mjs";
import { explain, say } from "./install/step.mjs";
import { requireFreePorts } from "./local/free-ports.mjs";
import { HELP, parseOptions, UsageError } from "./local/options.mjs";
import { showProgress } from "./local/progress.mjs";
import { localEnvironment } from "./local/settings.mjs";
import { followLog, lastLines, startSidecar } from "./local/sidecar-process.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(root, "sidecar/src/main.ts");
/** A first boot takes some 10 s, one that upgrades OpenClaw up to minutes. */
const READY_LIMIT_MS = 180_000;
const startedAt = Date.now();

process.exitCode = await start().catch(explainHere);

async function start() {
  const options = parseOptions(process.argv.slice(2), process.env);
  if (options.help) {
    console.log(HELP);
    return 0;
  }
  const home = resolve(options.dir ?? join(root, ".local/machine"));
  const log = join(home, "sidecar.log");
  const pidFile = join(home, "pid");
  requireNoOther(pidFile);
  await requireFreePorts(options.ports);

  const interrupted = new AbortController();
  let sidecar;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(name, () => {
      if (!interrupted.signal.aborted) say("Stopping (again after a second: at once)");
      interrupted.abort();
      sidecar?.signal(name === "SIGHUP" ? "SIGTERM" : name);
    });
  }

  const signal = interrupted.signal;
  const machine = await installMachine(root, { signal });
  signal.throwIfAborted();

  mkdirSync(home, { recursive: true, mode: 0o700 });
  const env = localEnvironment(home, { ports: options.ports, machine, env: process.env });
  say(`Starting the machine; its log goes to ${shown(log)}`);
  sidecar = startSidecar({ bun: machine.bun, main, env, log });
  writeFileSync(pidFile, String(sidecar.pid));
  const endLog = options.log ? followLog(log, sidecar.logStart) : () => {};

  const gone = new AbortController();
  const exited = sidecar.exited.finally(() => gone.abort());
  const watching = AbortSignal.any([signal, gone.signal]);
  const origin = `http://127.0.0.1:${options.ports.PORT}`;
  const outcome = await showProgress({
    origin,
    token: env.OPENCLAW_GATEWAY_TOKEN,
    limitMs: READY_LIMIT_MS,
    signal: watching,
  });
  if (outcome !== "ended") printSummary({ outcome, env, home, log, ports: options.ports });
  const code = await exited;
  endLog();
  rmSync(pidFile, { force: true });
  if (outcome === "ended" && !signal.aborted) {
    console.error(`The sidecar ended with ${code} before it was ready. The end of its log:`);
    for (const line of lastLines(log, { from: sidecar.logStart, count: 20 }))
      console.error(`  ${line}`);
    return code || 1;
  }
  say(`Stopped (exit code ${code})`);
  return code;
}

function printSummary({ outcome, env, home, log, ports: { PORT, PUBLIC_PORT } }) {
  const publicOrigin = `http://127.0.0.1:${PUBLIC_PORT}`;
  const token = shown(join(home, "token"));
  const header = `-H "Authorization: Bearer $(cat ${token})"`;
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
  console.log(`
${outcome === "ready" ? `Ready after ${seconds} s.` : `Not ready after ${seconds} s, and still trying; files and status are served all the same.`}

  Control UI   ${publicOrigin}/
  Token        ${env.OPENCLAW_GATEWAY_TOKEN}
  Health       http://127.0.0.1:${PORT}/readyz
  Log          ${shown(log)}
  Volume       ${env.DATA_DIR}
  Backup       ${env.BACKUP_URL}

  curl ${header} ${publicOrigin}/machine/status
  curl ${header} "${publicOrigin}/files/list?path=/data/workspace"

Ctrl-C stops it.
`);
}

/** A path as a person here would write it. */
function shown(path) {
  const short = relative(process.cwd(), path);
  return short.startsWith("..") ? path : short;
}

/** Two machines on one volume would undo each other's work. */
function requireNoOther(pidFile) {
  let pid;
  try {
    pid = Number(readFileSync(pidFile, "utf8"));
    if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(main)) return;
  } catch {
    return;
  }
  throw new UsageError(`This machine is already running (pid ${pid}). Stop it first: kill ${pid}`);
}

function explainHere(error) {
  if (!(error instanceof UsageError)) return explain(error);
  console.error(error.message);
  return 2;
}
