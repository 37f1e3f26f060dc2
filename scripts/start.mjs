import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { installMachine } from "./install/machine.mjs";
import { explain, say } from "./install/step.mjs";
import { claim } from "./local/claim.mjs";
import { requireFreePorts } from "./local/free-ports.mjs";
import { hasLeftovers } from "./local/leftovers.mjs";
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
  const held = claim(join(home, "pid"));
  try {
    return await run({ options, home, held });
  } finally {
    held.release();
  }
}

async function run({ options, home, held }) {
  const log = join(home, "sidecar.log");
  if (hasLeftovers(process.env.DATA_DIR || join(home, "data"))) {
    say("A sidecar was killed here before; what it left running is ended first");
  } else {
    await requireFreePorts(options.ports);
  }

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

  const env = localEnvironment(home, { ports: options.ports, machine, env: process.env });
  say(`Starting the machine; its log goes to ${shown(log)}`);
  sidecar = startSidecar({ bun: machine.bun, main, env, log });
  held.pass(sidecar.pid);
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
  if (!signal.aborted && (outcome === "ended" || code !== 0)) {
    const when = outcome === "ended" ? " before it was ready" : "";
    console.error(`The sidecar ended by itself with ${code}${when}. The end of its log:`);
    for (const line of lastLines(log, { from: sidecar.logStart, count: 20 }))
      console.error(`  ${line}`);
    console.error("What it may have left running is ended at the next start: npm start");
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

  Control UI   ${publicOrigin}/#token=${encodeURIComponent(env.OPENCLAW_GATEWAY_TOKEN)}
  Token        ${token}
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

function explainHere(error) {
  if (!(error instanceof UsageError)) return explain(error);
  console.error(error.message);
  return 2;
}
