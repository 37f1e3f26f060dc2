import { expect, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join, resolve } from "node:path";

import { freePorts } from "../support/free-ports.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const BOOT = resolve(import.meta.dir, "../../../scripts/boot-image.mjs");
/** A first build installs an operating system, Node, Bun, OpenClaw and Caddy. */
const BUILD_LIMIT_MS = 10 * 60_000;
const BOOT_LIMIT_MS = 180_000;
const SECRETS = {
  MOLTBOT_SIGNING_SECRET: "signing-secret-0123456789",
  CONTROL_PLANE_TOKEN: "control-plane-token-0123456789",
  R2_ACCESS_KEY_ID: "access-key-0123456789",
  R2_SECRET_ACCESS_KEY: "secret-key-0123456789",
};

const reason = whyNotHere();

test.skipIf(reason !== undefined)(
  `the image boots as PID 1, keeps its secrets and stops in order${reason === undefined ? "" : ` (cannot be tested here: ${reason})`}`,
  async () => {
    using dir = tempDir();
    const [sidecar = 0, caddy = 0, gateway = 0] = await freePorts(3);
    const token = "test-token-0123456789";
    const env = {
      USER_ID: "user-1",
      OPENCLAW_GATEWAY_TOKEN: token,
      BACKUP_URL: "file:///var/lib/store",
      PUBLIC_ORIGIN: `http://127.0.0.1:${caddy}`,
      PORT: String(sidecar),
      PUBLIC_PORT: String(caddy),
      GATEWAY_PORT: String(gateway),
      ...SECRETS,
    };
    await using machine = await boot(join(dir.path, "data"), env);

    await until(
      async () => {
        if (!isAlive(machine.pid)) throw new Error(`The machine ended:\n${machine.said()}`);
        return (await answer(`http://127.0.0.1:${sidecar}/readyz`))?.status === 200;
      },
      "the machine is ready",
      BOOT_LIMIT_MS,
    );
    const livez = await answer(`http://127.0.0.1:${caddy}/machine/livez`);
    expect(await livez?.json()).toEqual({ ok: true });

    expect(runInside(machine, machine.healthcheck, env).exitCode).toBe(0);
    expect(runInside(machine, machine.healthcheck, { PORT: "1" }).exitCode).toBe(1);

    const passwd = readFileSync(join(machine.root, "etc/passwd"), "utf8");
    const children = treeUnder(machine.pid);
    expect(ownersOf(children, /caddy run/)).toEqual(new Set([uidOf("caddy", passwd)]));
    expect(ownersOf(children, /openclaw/)).toEqual(new Set([uidOf("agent", passwd)]));
    for (const { pid } of children) {
      for (const secret of Object.values(SECRETS)) expect(environmentOf(pid)).not.toContain(secret);
    }
    expect(readAs(uidOf("agent", passwd), `/proc/${machine.pid}/environ`)).toContain("denied");

    const links: readonly (readonly [string, string])[] = [
      ["home/node/.openclaw", "/data/openclaw"],
      ["home/node/workspace", "/data/workspace"],
      ["root/clawd", "/data/workspace"],
      ["root/.clawdbot", "/data/openclaw"],
      ["root/.openclaw", "/data/openclaw"],
    ];
    for (const [link, target] of links) expect(readlinkSync(join(machine.root, link))).toBe(target);
    expect(readdirSync(join(dir.path, "data"))).toEqual(
      expect.arrayContaining(["home", "openclaw", "workspace"]),
    );

    process.kill(machine.pid, "SIGTERM");
    expect(await machine.exited).toBe(0);
    expect(children.filter(({ pid }) => isAlive(pid))).toEqual([]);
  },
  BUILD_LIMIT_MS + BOOT_LIMIT_MS + 120_000,
);

function whyNotHere(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const PATH = `${process.env["PATH"]}:/usr/sbin:/sbin`;
  const programs = ["buildah", "debootstrap", "unshare", "nsenter", "setpriv", "node"];
  const missing = programs.filter((name) => Bun.which(name, { PATH }) === null);
  return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")}`;
}

interface Booted extends AsyncDisposable {
  readonly pid: number;
  readonly root: string;
  readonly healthcheck: readonly string[];
  readonly exited: Promise<number>;
  /** The end of all it printed so far. */
  said(): string;
}

async function boot(volume: string, env: Readonly<Record<string, string>>): Promise<Booted> {
  const names = Object.keys(env).flatMap((name) => ["--env", name]);
  const child = Bun.spawn(["node", BOOT, "--volume", volume, ...names], {
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "inherit",
  });
  let output = "";
  const reading = (async () => {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) output += chunk;
  })();
  const line = await until(
    () => {
      if (child.exitCode !== null) throw new Error(`Cannot boot the image:\n${output}`);
      return /^\{"pid".*$/m.exec(output)?.[0];
    },
    "the image is built and booted",
    BUILD_LIMIT_MS,
  );
  const booted = JSON.parse(line) as Pick<Booted, "pid" | "root" | "healthcheck">;
  return {
    ...booted,
    exited: child.exited,
    said: () => output.slice(-4_000),
    async [Symbol.asyncDispose]() {
      // The namespace's first process takes all the others with it.
      if (child.exitCode === null && isAlive(booted.pid)) process.kill(booted.pid, "SIGKILL");
      await child.exited;
      await reading;
    },
  };
}

/** Runs a command where a container engine would: in the machine's namespaces and file system. */
function runInside(
  { pid }: Booted,
  command: readonly string[],
  env: Readonly<Record<string, string>>,
) {
  const enter = ["/usr/bin/nsenter", "--target", String(pid), "--mount", "--pid", "--root", "--wd"];
  return Bun.spawnSync([...enter, ...command], {
    env: { PATH: "/usr/local/bin:/usr/bin", ...env },
  });
}

async function answer(url: string): Promise<Response | undefined> {
  try {
    return await fetch(url, { signal: AbortSignal.timeout(3_000) });
  } catch {
    return undefined;
  }
}

interface Process {
  readonly pid: number;
  readonly command: string;
}

/** All descendants of a process, by the kernel's lists of children. */
function treeUnder(pid: number): Process[] {
  const children = list(`/proc/${pid}/task`).flatMap((thread) =>
    read(`/proc/${pid}/task/${thread}/children`).trim().split(" ").filter(Boolean),
  );
  return children.flatMap((child) => [
    { pid: Number(child), command: read(`/proc/${child}/cmdline`).replaceAll("\0", " ") },
    ...treeUnder(Number(child)),
  ]);
}

function ownersOf(processes: readonly Process[], command: RegExp): Set<number> {
  const matching = processes.filter((entry) => command.test(entry.command));
  return new Set(
    matching.map(({ pid }) => Number(/^Uid:\t(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1])),
  );
}

function uidOf(name: string, passwd: string): number {
  return Number(new RegExp(`^${name}:[^:]*:(\\d+):`, "m").exec(passwd)?.[1]);
}

function environmentOf(pid: number): string {
  return read(`/proc/${pid}/environ`);
}

function readAs(uid: number, path: string): string {
  const user = ["--reuid", String(uid), "--regid", String(uid), "--clear-groups"];
  const { stdout, stderr } = Bun.spawnSync(["setpriv", ...user, "cat", path]);
  return stdout.toString() + stderr.toString();
}

function isAlive(pid: number): boolean {
  return read(`/proc/${pid}/stat`) !== "";
}

/** A process may be gone before it is read. */
function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
