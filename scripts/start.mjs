import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { installMachine } from "./install/machine.mjs";
import { explain, say } from "./install/step.mjs";
import { requireFreePorts } from "./local/free-ports.mjs";
import { HELP, parseOptions, UsageError } from "./local/options.mjs";
import { showProgress } from "./local/progress.mjs";
import { localEnvironment } from "./local/settings.mjs";
import { followLog, lastLines, startSidecar } from "./local/sidecar-process.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const home = join(root, ".local/machine");
const log = join(home, "sidecar.log");
const pidFile = join(home, "pid");
const startedAt = Date.now();

process.exitCode = await main().catch(explainHere);

async function main() {
  const options = parseOptions(process.argv.slice(2), process.env);
  if (options.help) {
    console.log(HELP);
    return 0;
  }
  requireNoOther();
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
  const env = localEnvironment(root, { ports: options.ports, machine, env: process.env });
  say(`Starting the machine; its log goes to ${relative(process.cwd(), log)}`);
  sidecar = startSidecar({ bun: machine.bun, main: join(root, "sidecar/src/main.ts"), env, log });
  writeFileSync(pidFile, String(sidecar.pid));
  const endLog = options.log ? followLog(log, sidecar.logStart) : () => {};

  const gone = new AbortController();
  const exited = sidecar.exited.finally(() => gone.abort());
  const watching = AbortSignal.any([signal, gone.signal]);
  const origin = `http://127.0.0.1:${options.ports.PORT}`;
  const ready = await showProgress({ origin, token: env.OPENCLAW_GATEWAY_TOKEN, signal: watching });
  if (ready) printSummary({ env, options });
  const code = await exited;
  endLog();
  rmSync(pidFile, { force: true });
  if (!ready && !signal.aborted) {
    console.error(`The sidecar ended with ${code} before it was ready. The end of its log:`);
    for (const line of lastLines(log, { from: sidecar.logStart, count: 20 }))
      console.error(`  ${line}`);
    return code || 1;
  }
  say(`Stopped (exit code ${code})`);
  return code;
}

function printSummary({ env, options }) {
  const { PORT, PUBLIC_PORT } = options.ports;
  const publicOrigin = `http://127.0.0.1:${PUBLIC_PORT}`;
  const token = relative(process.cwd(), join(home, "token"));
  const header = `-H "Authorization: Bearer $(cat ${token})"`;
  console.log(`
Ready after ${((Date.now() - startedAt) / 1000).toFixed(1)} s.

  Control UI   ${publicOrigin}/
  Token        ${env.OPENCLAW_GATEWAY_TOKEN}
  Health       http://127.0.0.1:${PORT}/readyz
  Log          ${relative(process.cwd(), log)}
  Volume       ${env.DATA_DIR}
  Backup       ${env.BACKUP_URL}

  curl ${header} ${publicOrigin}/machine/status
  curl ${header} "${publicOrigin}/files/list?path=/data/workspace"

Ctrl-C stops it.
`);
}

/** Two machines on one volume would undo each other's work. */
function requireNoOther() {
  let pid;
  try {
    pid = Number(readFileSync(pidFile, "utf8"));
    if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(join(root, "sidecar/src/main.ts")))
      return;
  } catch {
    return;
  }
  throw new UsageError(
    `The machine of this clone is already running (pid ${pid}). Stop it first: kill ${pid}`,
  );
}

function explainHere(error) {
  if (!(error instanceof UsageError)) return explain(error);
  console.error(error.message);
  return 2;
}
