import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { canBecomeRoot, runAgainAsRoot } from "./gate/as-root.mjs";
import { parseJunit } from "./gate/junit.mjs";
import { Processes } from "./gate/processes.mjs";
import { makeReachable } from "./gate/reachable.mjs";
import { startS3 } from "./gate/s3.mjs";
import { STEPS } from "./gate/steps.mjs";
import { installPackages } from "./install/apt.mjs";
import { installMachine } from "./install/machine.mjs";
import { withoutNpmRun } from "./install/npm.mjs";
import { InstallError, say } from "./install/step.mjs";

const LIMIT_MS = 20 * 60_000;
const TEST_LIMIT_MS = 30_000;
const HELP = `npm test [-- part of a path …]

Installs what the tests need, then runs format, lint, types, dead code and all tests, with a real S3
server. With parts of paths, only the test files whose path contains one of them, and not the rest:
  npm test -- backup supervisor
The last line counts everything: "N passed, N failed".`;
const S3_PROGRAMS = {
  radosgw: "radosgw",
  "ceph-mon": "ceph-mon",
  "ceph-osd": "ceph-osd",
  "ceph-common": "ceph",
};
const TEST_PROGRAMS = { zstd: "zstd", jq: "jq", git: "git" };
const IMAGE_PROGRAMS = { buildah: "buildah", debootstrap: "debootstrap" };

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const processes = new Processes();
const stopped = new AbortController();
const total = { passed: 0, failed: 0 };
let stopS3 = async () => {};
const atExit = [];
let finished = false;

const limit = setTimeout(() => {
  console.error(`Cannot finish the tests: ${LIMIT_MS / 60_000} minutes are over`);
  stop();
}, LIMIT_MS);
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(name, () => {
    console.error(`Cannot finish the tests: ${name} received`);
    stop();
  });
}
process.on("exit", () => {
  processes.end();
  for (const remove of atExit) remove();
});

const args = process.argv.slice(2);
if (args.includes("--help")) {
  console.log(HELP);
  process.exit(0);
}
try {
  await main(args);
} catch (error) {
  if (!finished) {
    console.error(error instanceof InstallError ? error.message : error);
    if (error.advice) console.error(error.advice);
    total.failed++;
  }
}
await finish();

async function main(filters) {
  const files = testFiles(filters);
  const machine = await install();
  if (canBecomeRoot()) {
    say("Some tests need root: running them all by sudo");
    finished = true;
    clearTimeout(limit);
    process.exit(await runAgainAsRoot());
  }
  const env = {
    ...withoutNpmRun(process.env),
    PATH: machine.path,
    SIDECAR_OPENCLAW_DIR: machine.openclawDir,
  };
  if (filters.length > 0) {
    // A test that needs S3 then starts a server of its own.
    await runTests(files, { bun: machine.bun, env });
    return;
  }
  const s3 = startS3Unless(env);
  for (const step of STEPS) await runStep(step, { node: machine.node, env });
  await runTests(files, { bun: machine.bun, env: { ...env, ...(await s3).variables } });
}

async function install() {
  const signal = stopped.signal;
  const machine = await installMachine(root, { signal });
  const wanted = process.env.S3_TEST_ENDPOINT
    ? TEST_PROGRAMS
    : { ...TEST_PROGRAMS, ...S3_PROGRAMS };
  await installPackages(wanted, { why: "for the tests", signal });
  try {
    await installPackages(IMAGE_PROGRAMS, { why: "for the test of the container image", signal });
  } catch (error) {
    if (!(error instanceof InstallError)) throw error;
    say(`${error.message}\n  The test of the container image is left out.`);
  }
  return { ...machine, path: `${machine.path}:/usr/sbin:/sbin` };
}

async function startS3Unless(env) {
  if (env.S3_TEST_ENDPOINT) return {};
  try {
    const server = await startS3(root, { processes, env });
    stopS3 = server.stop;
    return server;
  } catch (error) {
    if (!finished) count(false, `S3 server\n${error.message}`);
    return {};
  }
}

async function runStep({ name, script, args: given }, { node, env }) {
  const startedAt = Date.now();
  const { child, done } = processes.start(node, [join(root, script), ...given], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = [];
  child.stdout.on("data", (chunk) => output.push(chunk));
  child.stderr.on("data", (chunk) => output.push(chunk));
  const { code } = await done;
  if (finished) return;
  const text = code === 0 ? "" : `\n${Buffer.concat(output).toString("utf8").trimEnd()}`;
  count(code === 0, `${name} (${seconds(startedAt)})${text}`);
}

async function runTests(files, { bun, env }) {
  if (files.length === 0) throw new InstallError("Cannot run any test: no test file matches");
  if (finished) return;
  const folder = mkdtempSync(join(tmpdir(), "sidecar-report-"));
  const clone = makeReachable(root);
  atExit.push(() => rmSync(folder, { recursive: true, force: true }), clone.end);
  const report = join(folder, "report.xml");
  // Bun does not read this from bunfig.toml; a test that is known to take longer says so itself.
  const options = [
    `--timeout=${TEST_LIMIT_MS}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  const paths = files.map((file) => `./${file}`);
  const there = (text) => text.replaceAll(`${root}/`, `${clone.root}/`);
  const [program, ...given] = clone.wrap([there(bun), "test", ...options, ...paths]);
  const { done } = processes.start(program, given, {
    cwd: root,
    env: Object.fromEntries(Object.entries(env).map(([name, value]) => [name, there(value)])),
    stdio: ["ignore", "inherit", "inherit"],
  });
  const { code } = await done;
  if (!finished) addReport(readIfThere(report), { code, files });
}

function addReport(xml, { code, files }) {
  const result = parseJunit(xml ?? "");
  total.passed += result.passed;
  total.failed += result.failed;
  console.log("");
  const notRun = files.filter((file) => !result.files.has(file));
  if (xml === undefined) count(false, `the test runner ended with ${code} and left no report`);
  else for (const file of notRun) count(false, `${file}: no test of it ran`);
  if (code !== 0 && result.failed === 0 && notRun.length === 0)
    count(false, `the test runner ended with ${code}`);
  if (result.passed + result.failed === 0) count(false, "no test ran");
  for (const name of result.skips) console.log(`- skipped: ${name}`);
  for (const name of result.failures) console.log(`✗ ${name}`);
}

function count(passed, text) {
  total[passed ? "passed" : "failed"]++;
  console.log(`${passed ? "✓" : "✗"} ${text}`);
}

function testFiles(filters) {
  const folder = join(root, "sidecar/test");
  return readdirSync(folder, { recursive: true })
    .filter((path) => path.endsWith(".test.ts"))
    .map((path) => `sidecar/test/${path}`)
    .filter((path) => filters.length === 0 || filters.some((part) => path.includes(part)))
    .sort();
}

function stop() {
  total.failed++;
  stopped.abort();
  void finish();
}

/** Ends what is left and prints the one line that counts; nothing is printed after it. */
async function finish() {
  if (finished) return;
  finished = true;
  clearTimeout(limit);
  await stopS3();
  await processes.settle();
  const left = processes.end();
  if (left.length > 0) console.log(`Ended what the tests left running: ${left.join(", ")}`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0);
}

function readIfThere(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function seconds(since) {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`;
}
