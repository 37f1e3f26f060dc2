// A real S3 server for tests: Ceph's gateway over one monitor and one OSD, on loopback, in one temporary folder.
//
//   node scripts/s3-server.mjs
//
// Prints one line of JSON when it serves: { endpoint, accessKeyId, secretAccessKey, region, bucket }.
// Ends, with its daemons and its folder, on SIGTERM or SIGINT or when its standard input closes; the folder and the
// daemons go even if this process is killed with SIGKILL. Everything in it is thrown away.

import { spawn } from "node:child_process";
import { createHash, createHmac, randomBytes, randomUUID } from "node:crypto";
import {
  accessSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const START_LIMIT_MS = 120_000;
/** A port can be taken between our look and the daemon's bind, and a Ceph daemon now and then loses a race with itself. */
const START_TRIES = 3;
const REGION = "us-east-1";
const BUCKET = "tests";
const PROGRAMS = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool"];
const INSTALL = "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common";

const stopped = new AbortController();

try {
  const missing = PROGRAMS.filter((program) => !isInstalled(program));
  if (missing.length > 0) {
    throw new Error(
      `Cannot start the S3 server: ${missing.join(", ")} not installed; run: ${INSTALL}`,
    );
  }
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(name, () => stopped.abort());
  process.stdin.on("end", () => stopped.abort()).on("error", () => stopped.abort());
  process.stdin.resume();
  await serve();
} catch (error) {
  if (!stopped.signal.aborted) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
process.stdin.destroy();

async function serve() {
  for (let tries = 1; ; tries += 1) {
    const run = { serving: false };
    try {
      await serveOnce(run);
      return;
    } catch (error) {
      if (stopped.signal.aborted || run.serving || tries === START_TRIES) throw error;
    }
  }
}

async function serveOnce(run) {
  const folder = makeFolder();
  const guardian = startGuardian(folder);
  const daemons = [];
  try {
    const settings = await start(folder, daemons);
    run.serving = true;
    process.stdout.write(`${JSON.stringify(settings)}\n`);
    // A daemon that dies while it is needed rejects here.
    await Promise.race([aborted(stopped.signal), ...daemons.map((daemon) => daemon.failed)]);
  } finally {
    // Nothing in it is worth an orderly end, and an orderly one takes seconds.
    for (const { child } of daemons) child.kill("SIGKILL");
    await Promise.all(daemons.map((daemon) => daemon.exited));
    guardian.stdin.end();
    await new Promise((resolve) => guardian.once("exit", resolve));
  }
}

/**
 * Outlives this process, whatever ends it: kills the daemons and removes the folder when our end of its pipe closes.
 * A group of its own keeps a Ctrl-C at the terminal from it.
 */
function startGuardian(folder) {
  const script = `cat >/dev/null
    for file in "$1"/pids/*; do [ -f "$file" ] && kill -9 "\${file##*/}" 2>/dev/null; done
    for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done`;
  return spawn("sh", ["-c", script, "sh", folder], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
}

async function start(folder, daemons) {
  const deadline = AbortSignal.any([stopped.signal, AbortSignal.timeout(START_LIMIT_MS)]);
  const [monitorPort, gatewayPort] = await freePorts(2);
  const monitor = `[v1:127.0.0.1:${monitorPort}]`;
  const fsid = randomUUID();
  const conf = join(folder, "ceph.conf");
  writeFileSync(conf, configuration({ folder, fsid, monitor, gatewayPort }));

  const run = (program, ...args) =>
    runToEnd(program, ["-c", conf, ...args], { folder, signal: deadline });
  const daemon = (program, ...args) => {
    const started = startDaemon(program, ["-c", conf, "-f", ...args], folder);
    daemons.push(started);
    return started;
  };

  await run("monmaptool", "--create", "--addv", "a", monitor, "--fsid", fsid, join(folder, "map"));
  await run("ceph-mon", "--mkfs", "-i", "a", "--monmap", join(folder, "map"));
  const mon = daemon("ceph-mon", "-i", "a");
  await orFailed(run("ceph", "--connect-timeout", "60", "osd", "create"), mon);
  await orFailed(run("ceph-osd", "-i", "0", "--mkfs"), mon);
  const osd = daemon("ceph-osd", "-i", "0");
  const gateway = daemon("radosgw", "-n", "client.rgw");

  const accessKeyId = randomBytes(10).toString("hex");
  const secretAccessKey = randomBytes(20).toString("hex");
  const settings = {
    endpoint: `http://127.0.0.1:${gatewayPort}`,
    accessKeyId,
    secretAccessKey,
    region: REGION,
    bucket: BUCKET,
  };
  await orFailed(waitForHttp(settings.endpoint, deadline), mon, osd, gateway);
  const user = ["user", "create", "--uid=tests", "--display-name=tests"];
  const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
  await orFailed(run("radosgw-admin", "-n", "client.rgw", ...user, ...keys), mon, osd, gateway);
  // The first requests make the gateway's pools, which takes seconds: before anyone measures or waits.
  await orFailed(prepareBucket(settings, deadline), mon, osd, gateway);
  return settings;
}

function configuration({ folder, fsid, monitor, gatewayPort }) {
  return `[global]
fsid = ${fsid}
mon host = ${monitor}
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg num = 8
mon allow pool size one = true
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail warn = 1
mon data avail crit = 1
osd objectstore = bluestore
bluestore block size = 17179869184
run dir = ${folder}/run
log file = ${folder}/log/$name.log
admin socket = ${folder}/run/$name.asok
pid file = ${folder}/run/$name.pid
mon data = ${folder}/mon
osd data = ${folder}/osd
crash dir = ${folder}/run
[client.rgw]
rgw data = ${folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:${gatewayPort} tcp_nodelay=1
rgw dynamic resharding = false
rgw enable usage log = false
`;
}

/** Sockets live in the folder, and their paths may have 107 bytes: /tmp where the usual place is deep. */
function makeFolder() {
  const parent = tmpdir().length > 60 ? "/tmp" : tmpdir();
  const folder = mkdtempSync(join(parent, "sidecar-s3-"));
  for (const name of ["run", "log", "mon", "osd", "rgw", "pids"]) mkdirSync(join(folder, name));
  return folder;
}

function startDaemon(program, args, folder) {
  const output = openSync(join(folder, "log", `${program}.out`), "a");
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", output, output] });
  closeSync(output);
  if (child.pid !== undefined) writeFileSync(join(folder, "pids", String(child.pid)), "");
  let settle;
  const exited = new Promise((resolve) => (settle = resolve));
  const failed = new Promise((_, reject) => {
    child.once("error", (error) => {
      settle();
      reject(new Error(`Cannot start "${program}": ${error.message}`, { cause: error }));
    });
    child.once("exit", (code, signal) => {
      settle();
      reject(
        new Error(
          `Cannot go on serving S3: ${program} ended with ${signal ?? code}${logTail(folder, program)}`,
        ),
      );
    });
  });
  failed.catch(() => undefined);
  return { child, exited, failed };
}

/** Runs a program to its end. Fails with the end of what it said. */
async function runToEnd(program, args, { folder, signal }) {
  signal.throwIfAborted();
  const outPath = join(folder, "log", `${program}.run`);
  const output = openSync(outPath, "w");
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", output, output] });
  closeSync(output);
  const kill = () => child.kill("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  const code = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, ended) => resolve(ended ?? code));
  });
  signal.removeEventListener("abort", kill);
  if (code !== 0) {
    throw new Error(
      `Cannot set up the S3 server: ${program} ended with ${code}${tail(outPath)}${logTail(folder, "ceph-mon")}`,
    );
  }
}

/** The end of everything a daemon wrote. */
function logTail(folder, program) {
  const names = { "ceph-mon": "mon.a", "ceph-osd": "osd.0", radosgw: "client.rgw" };
  const log = tail(join(folder, "log", `${names[program]}.log`));
  return tail(join(folder, "log", `${program}.out`)) + log;
}

function tail(path) {
  try {
    const text = readFileSync(path, "utf8").trimEnd();
    return text === "" ? "" : `\n--- end of ${path}\n${text.split("\n").slice(-25).join("\n")}`;
  } catch {
    return "";
  }
}

function orFailed(work, ...daemons) {
  return Promise.race([work, ...daemons.map((daemon) => daemon.failed)]);
}

async function waitForHttp(endpoint, signal) {
  for (;;) {
    try {
      await fetch(endpoint, { signal });
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof TypeError)) throw error;
      await sleep(50, undefined, { signal });
    }
  }
}

async function prepareBucket(settings, signal) {
  for (const [method, path] of [
    ["PUT", `/${BUCKET}`],
    ["PUT", `/${BUCKET}/warm-up`],
    ["DELETE", `/${BUCKET}/warm-up`],
  ]) {
    const response = await fetch(settings.endpoint + path, {
      method,
      headers: sign(method, path, settings),
      signal,
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`Cannot ${method} "${path}": ${response.status} ${text}`);
  }
}

/** The headers of a request without a body, signed with AWS's version 4. */
function sign(method, path, { endpoint, accessKeyId, secretAccessKey }) {
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d{3}/g, "");
  const scope = `${time.slice(0, 8)}/${REGION}/s3/aws4_request`;
  const hash = sha256("");
  const host = new URL(endpoint).host;
  const names = "host;x-amz-content-sha256;x-amz-date";
  const canonical = `${method}\n${path}\n\nhost:${host}\nx-amz-content-sha256:${hash}\nx-amz-date:${time}\n\n${names}\n${hash}`;
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256(canonical)}`;
  const key = scope.split("/").reduce((key, part) => hmac(key, part), `AWS4${secretAccessKey}`);
  return {
    "x-amz-content-sha256": hash,
    "x-amz-date": time,
    authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${hmac(key, toSign).toString("hex")}`,
  };
}

function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

function hmac(key, text) {
  return createHmac("sha256", key).update(text).digest();
}

/** Ports that are free now: all are held until the last is known, so that they differ. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise((resolve, reject) => {
          const server = createServer();
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function isInstalled(program) {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function aborted(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
