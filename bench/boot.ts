// Cold boot, idle memory and the way of a change into the store, on the machine as a whole with a stub gateway.
// Prints figures beside those of the least that could stand in its place: a Bun process that serves one route.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { freePorts } from "../sidecar/test/support/free-ports.ts";
import { MachineProcess } from "../sidecar/test/support/machine-process.ts";

const ROUNDS = 5;
const CHANGES = 100;

const folder = mkdtempSync(join(tmpdir(), "sidecar-bench-"));
try {
  // The first boot makes the volume; what is measured is a machine that has one.
  await using first = await MachineProcess.start({ folder });
  await first.untilReady();
  await first.sync();
  await first.stop();

  const boots: { readonly livez: number; readonly readyz: number }[] = [];
  const bare: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    boots.push(await measureBoot());
    bare.push(await measureBareBun());
  }
  const { rssMb, delays } = await measureChanges();
  print("boot to /livez, ms", { ours: boots.map((boot) => boot.livez), peer: bare, goal: "< 200" });
  print("boot to /readyz (stub gateway), ms", {
    ours: boots.map((boot) => boot.readyz),
    peer: bare,
    goal: "< 500",
  });
  console.log(
    `${"idle RSS, MiB".padEnd(40)} ${rssMb.machine.toFixed(1).padStart(8)}  bare Bun ${rssMb.bare.toFixed(1)}  goal < 100`,
  );
  console.log(
    `${"change to durable, ms".padEnd(40)} p50 ${percentile(delays, 50).toFixed(0)}  p99 ${percentile(delays, 99).toFixed(0)}  goal p99 < 1000 (${delays.length} changes, store in a folder)`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function measureBoot(): Promise<{ livez: number; readyz: number }> {
  const started = performance.now();
  await using machine = await MachineProcess.start({ folder });
  const livez = await untilOk(machine, "/livez", started);
  const readyz = await untilOk(machine, "/readyz", started);
  await machine.stop();
  return { livez, readyz };
}

async function untilOk(machine: MachineProcess, path: string, started: number): Promise<number> {
  for (;;) {
    const response = await machine.fetch(path).catch(() => undefined);
    await response?.body?.cancel();
    if (response?.ok) return performance.now() - started;
    if (performance.now() - started > 60_000)
      throw new Error(`No 200 from ${path} within 60 s\n${machine.tail()}`);
    await Bun.sleep(2);
  }
}

async function measureChanges(): Promise<{
  rssMb: { machine: number; bare: number };
  delays: number[];
}> {
  await using machine = await MachineProcess.start({ folder });
  await machine.untilReady();
  await machine.sync();
  await Bun.sleep(3_000);
  const rssMb = { machine: rssOf(machine.pid), bare: await measureBareRss() };
  const delays: number[] = [];
  for (let n = 0; n < CHANGES; n += 1) {
    const before = (await machine.report()).backup.position;
    const started = performance.now();
    writeFileSync(
      join(machine.dataDir, "workspace", `bench-${n % 10}.md`),
      `change ${n} ${Math.random()}`,
    );
    while ((await machine.report()).backup.position === before) {
      if (performance.now() - started > 60_000)
        throw new Error(`A change was not durable after 60 s\n${machine.tail()}`);
      await Bun.sleep(5);
    }
    delays.push(performance.now() - started);
    // Apart far enough that each change finds an idle machine, as the goal says.
    await Bun.sleep(1_100);
  }
  await machine.stop();
  return { rssMb, delays };
}

async function withBareBun<T>(
  measure: (port: number, pid: number, started: number) => Promise<T>,
): Promise<T> {
  const [port = 0] = await freePorts(1);
  const started = performance.now();
  const server = Bun.spawn([
    process.execPath,
    "-e",
    `Bun.serve({port:${port},fetch:()=>new Response("ok")})`,
  ]);
  try {
    for (;;) {
      const response = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
      await response?.body?.cancel();
      if (response?.ok) return await measure(port, server.pid, started);
      await Bun.sleep(2);
    }
  } finally {
    server.kill();
    await server.exited;
  }
}

function measureBareBun(): Promise<number> {
  return withBareBun(async (_port, _pid, started) => performance.now() - started);
}

function measureBareRss(): Promise<number> {
  return withBareBun(async (_port, pid) => rssOf(pid));
}

/** Resident MiB of one process. */
function rssOf(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}

interface Row {
  readonly ours: readonly number[];
  readonly peer: readonly number[];
  readonly goal: string;
}

function print(what: string, { ours, peer, goal }: Row): void {
  const [mine, theirs] = [percentile(ours, 50), percentile(peer, 50)];
  console.log(
    `${what.padEnd(40)} median ${mine.toFixed(0).padStart(5)} (${ours.map((ms) => ms.toFixed(0)).join(" ")})  bare Bun ${theirs.toFixed(0)}  ratio ${(mine / theirs).toFixed(1)}  goal ${goal}`,
  );
}

function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (
    sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? Number.NaN
  );
}
