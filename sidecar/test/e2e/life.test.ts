import { expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

import { MachineProcess } from "../support/machine-process.ts";
import { s3Behind } from "../support/s3-machine.ts";
import { S3_START_LIMIT_MS } from "../support/s3-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";
import { describeVolume, plantTree, wipe } from "../support/volume.ts";

const LIMIT_MS = 120_000;

test(
  "a machine boots on an empty volume, keeps it in the store, and brings it back when it is lost",
  async () => {
    using folder = tempDir();
    let before: ReturnType<typeof describeVolume>;
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      expect(readFileSync(join(machine.dataDir, "workspace/AGENTS.md"), "utf8")).not.toBe("");
      plantTree(join(machine.dataDir, "workspace/tree"));
      const wrote = await machine.fetchPublic("/files/write?path=notes/hello.md", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ content: "hello" }),
      });
      expect(await wrote.json()).toMatchObject({ success: true, size: 5 });
      const { position } = await machine.sync();
      expect(position).toBeGreaterThan(0);
      before = describeVolume(machine.dataDir);
      expect(await machine.stop()).toBe(0);
      expect(machine.lines.filter((line) => "raw" in line)).toEqual([]);
      wipe(machine.dataDir);
    }
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    expect(describeVolume(machine.dataDir)).toEqual(before);
    // Nothing of it is sent again.
    const { backup } = await machine.report();
    const { position } = await machine.sync();
    expect(position).toBe(backup.position);
    expect(await machine.stop()).toBe(0);
  },
  LIMIT_MS,
);

test(
  "what is written by hand and through /files is in the store within 2 s",
  async () => {
    using folder = tempDir();
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    await machine.sync();
    for (const write of [
      () => writeFileSync(join(machine.dataDir, "workspace/by-hand.md"), "by hand"),
      () => machine.fetch("/files/upload?path=uploaded.bin", { method: "POST", body: "uploaded" }),
    ]) {
      const { backup } = await machine.report();
      const started = performance.now();
      await write();
      await machine.untilReport(
        (report) => report.backup.position > backup.position,
        "a new commit",
        10_000,
      );
      // Twice what users are promised: the machine that runs this may be doing much else.
      expect(performance.now() - started).toBeLessThan(4_000);
    }
  },
  LIMIT_MS,
);

test(
  "a machine that was stopped has committed what its gateway wrote last",
  async () => {
    using folder = tempDir();
    const last = "written on SIGTERM";
    const gateway = `
      const server = Bun.serve({ port: Number(process.env.GATEWAY_PORT), fetch: () => new Response("ok") });
      process.on("SIGTERM", () => {
        require("node:fs").writeFileSync(process.env.HOME + "/last.txt", ${JSON.stringify(last)});
        process.exit(0);
      });`;
    const env = { GATEWAY_COMMAND: JSON.stringify([process.execPath, "-e", gateway]) };
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      await machine.untilReady();
      expect(await machine.stop()).toBe(0);
      expect(readFileSync(join(machine.dataDir, "home/last.txt"), "utf8")).toBe(last);
      wipe(machine.dataDir);
    }
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    expect(readFileSync(join(machine.dataDir, "home/last.txt"), "utf8")).toBe(last);
  },
  LIMIT_MS,
);

test("a faulty environment is named as a whole, without its values, and exits 78", async () => {
  using folder = tempDir();
  const env = { USER_ID: "../evil", OPENCLAW_GATEWAY_TOKEN: "tiny", PORT: "http" };
  await using machine = await MachineProcess.start({ folder: folder.path, env });
  expect(await machine.exited).toBe(78);
  const printed = JSON.stringify(machine.lines);
  for (const name of Object.keys(env)) expect(printed).toContain(name);
  for (const value of ["../evil", "tiny"]) expect(printed).not.toContain(value);
});

test("a port that is taken is a clear error", async () => {
  using folder = tempDir();
  const server = createServer();
  const port = await new Promise<number>((resolve) =>
    server.listen(0, "0.0.0.0", () => resolve((server.address() as { port: number }).port)),
  );
  try {
    await using machine = await MachineProcess.start({
      folder: folder.path,
      env: { PORT: String(port) },
    });
    expect(await machine.exited).toBe(1);
    expect(JSON.stringify(machine.lines)).toContain(`port ${port}`);
  } finally {
    server.close();
  }
});

test(
  "a signal is obeyed from the first moment on",
  async () => {
    using folder = tempDir();
    for (const delayMs of [20, 60, 120, 250, 500, 1_000]) {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await Bun.sleep(delayMs);
      machine.signal("SIGTERM");
      const code = await machine.exited;
      // Before Bun itself has come up nobody can catch a signal: then it ends us as it ends any process.
      expect([0, 143]).toContain(code);
    }
  },
  LIMIT_MS,
);

test(
  "a second signal ends a machine whose gateway will not go",
  async () => {
    using folder = tempDir();
    const gateway = `
      Bun.serve({ port: Number(process.env.GATEWAY_PORT), fetch: () => new Response("ok") });
      process.on("SIGTERM", () => console.log("not now"));`;
    const env = { GATEWAY_COMMAND: JSON.stringify([process.execPath, "-e", gateway]) };
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    await machine.untilReady();
    const gatewayPid =
      (await machine.report()).services.find((service) => service.name === "gateway")?.pid ?? 0;
    machine.signal("SIGTERM");
    await until(
      () => JSON.stringify(machine.lines).includes("not now"),
      "the gateway was asked to go",
    );
    await Bun.sleep(1_200);
    const started = performance.now();
    machine.signal("SIGTERM");
    expect(await machine.exited).toBe(0);
    expect(performance.now() - started).toBeLessThan(15_000);
    expect(existsSync(`/proc/${gatewayPid}`)).toBe(false);
  },
  LIMIT_MS,
);

test(
  "a gateway that keeps dying is failed, and files and backup stay up",
  async () => {
    using folder = tempDir();
    const env = { GATEWAY_COMMAND: JSON.stringify(["/bin/sh", "-c", "echo dying; exit 3"]) };
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    const report = await machine.untilReport(
      ({ services }) =>
        services.some((service) => service.name === "gateway" && service.state === "failed"),
      "the gateway is failed",
      60_000,
    );
    expect(report.state).toBe("degraded");
    expect(report.reasons.map((reason) => reason.part)).toContain("gateway");
    // Not once for each death.
    expect(machine.lines.filter(({ state }) => state === "degraded")).toHaveLength(1);
    expect((await machine.fetchPublic("/machine/livez")).status).toBe(200);
    expect((await machine.fetch("/readyz")).status).toBe(503);
    expect((await machine.fetchPublic("/files/list?path=/data/workspace")).status).toBe(200);
    writeFileSync(join(machine.dataDir, "workspace/still-backed-up.md"), "yes");
    expect((await machine.sync()).position).toBeGreaterThan(0);
  },
  LIMIT_MS,
);

test(
  "a command that does not exist is a reason in the status, and nothing else fails for it",
  async () => {
    using folder = tempDir();
    const env = { GATEWAY_COMMAND: JSON.stringify(["/no/such/gateway"]) };
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    const report = await machine.untilReport(
      ({ state }) => state === "degraded",
      "the machine is degraded",
    );
    expect(JSON.stringify(report.reasons)).toContain("/no/such/gateway");
    expect((await machine.fetchPublic("/files/list?path=/data/workspace")).status).toBe(200);
  },
  LIMIT_MS,
);

test(
  "a volume of another user is refused: no gateway, no files, and the reason in the status",
  async () => {
    using folder = tempDir();
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      await machine.stop();
    }
    await using machine = await MachineProcess.start({
      folder: folder.path,
      env: { USER_ID: "user-2" },
    });
    const report = await machine.untilReport(
      ({ state }) => state === "degraded",
      "the machine is degraded",
    );
    expect(JSON.stringify(report.reasons)).toContain("user-1");
    expect(report.services.find((service) => service.name === "gateway")?.state).toBe("initial");
    expect((await machine.fetch("/files/list?path=/data/workspace")).status).toBe(503);
    expect(existsSync(join(folder.path, "store/users/user-2/backup/commits"))).toBe(false);
    expect(await machine.stop()).toBe(0);
  },
  LIMIT_MS,
);

test(
  "with an empty volume and a store that does not answer, no gateway is started until it does",
  async () => {
    using folder = tempDir();
    const { proxy, env } = await s3Behind();
    await using _ = proxy;
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      await machine.untilReady();
      await machine.sync();
      await machine.stop();
      wipe(machine.dataDir);
    }
    proxy.reachable = false;
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    const waiting = await machine.untilReport(({ state }) => state !== "booting", "it waits");
    expect(waiting.state).toBe("degraded");
    expect(waiting.reasons.map((reason) => reason.kind)).toContain("waiting_for_store");
    expect(waiting.services.find((service) => service.name === "gateway")?.state).toBe("initial");
    expect((await machine.fetch("/livez")).status).toBe(200);
    expect((await machine.fetch("/files/list?path=/data/workspace")).status).toBe(503);
    proxy.reachable = true;
    await machine.untilReady(90_000);
    expect(existsSync(join(machine.dataDir, "workspace/AGENTS.md"))).toBe(true);
  },
  S3_START_LIMIT_MS + LIMIT_MS,
);

test(
  "with a full volume and a store that does not answer, the machine starts at once and catches up later",
  async () => {
    using folder = tempDir();
    const { proxy, env } = await s3Behind();
    await using _ = proxy;
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      await machine.untilReady();
      await machine.sync();
      await machine.stop();
    }
    proxy.reachable = false;
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      const running = await machine.untilReport(
        ({ services }) => services.some(({ name, ready }) => name === "gateway" && ready),
        "the gateway runs",
      );
      expect(running.backup.state).toBe("unreachable");
      writeFileSync(join(machine.dataDir, "workspace/meanwhile.md"), "written in the outage");
      proxy.reachable = true;
      await machine.untilReady(90_000);
      await machine.sync();
      // And an outage while it runs.
      proxy.reachable = false;
      writeFileSync(join(machine.dataDir, "workspace/later.md"), "written in the next outage");
      await machine.untilReport(
        ({ backup }) => backup.state === "unreachable",
        "the outage is seen",
        60_000,
      );
      proxy.reachable = true;
      await machine.untilReport(
        ({ state, backup }) => state === "ready" && backup.lagMs === 0,
        "all is caught up",
        90_000,
      );
      expect(await machine.stop()).toBe(0);
      wipe(machine.dataDir);
    }
    await using again = await MachineProcess.start({ folder: folder.path, env });
    await again.untilReady();
    for (const [name, text] of [
      ["meanwhile.md", "written in the outage"],
      ["later.md", "written in the next outage"],
    ] as const) {
      expect(readFileSync(join(again.dataDir, "workspace", name), "utf8")).toBe(text);
    }
  },
  S3_START_LIMIT_MS + LIMIT_MS,
);

test(
  "of two machines on one store the slower is fenced: its gateway is stopped, its files are read-only",
  async () => {
    using one = tempDir();
    using two = tempDir();
    const env = { BACKUP_URL: `file://${join(one.path, "store")}` };
    await using first = await MachineProcess.start({ folder: one.path, env });
    await first.untilReady();
    await first.sync();
    await using second = await MachineProcess.start({ folder: two.path, env });
    await second.untilReady();
    writeFileSync(join(second.dataDir, "workspace/second.md"), "the second machine goes on");
    await second.sync();
    writeFileSync(join(first.dataDir, "workspace/first.md"), "the first one does not know yet");
    const report = await first.untilReport(
      ({ backup }) => backup.state === "fenced",
      "the first is fenced",
      60_000,
    );
    expect(report.state).toBe("degraded");
    await first.untilReport(
      ({ services }) =>
        services.some((service) => service.name === "gateway" && service.state === "stopped"),
      "its gateway is stopped",
    );
    const write = await first.fetch("/files/write?path=x.md", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ content: "x" }),
    });
    expect([403, 503]).toContain(write.status);
    expect((await first.fetch("/files/read?path=/data/workspace/first.md")).status).toBe(200);
    expect((await second.report()).state).toBe("ready");
    expect(await first.stop()).toBe(0);
    // What the fenced one had is still on its own volume.
    expect(existsSync(join(first.dataDir, "workspace/first.md"))).toBe(true);
  },
  LIMIT_MS,
);

test(
  "an own folder and old paths are kept apart: aliases lead to the workspace, the sidecar's folder to nobody",
  async () => {
    using folder = tempDir();
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    mkdirSync(join(machine.dataDir, "workspace/sub"), { recursive: true });
    for (const path of [
      "/home/node/.openclaw/workspace/sub",
      "/home/node/workspace/sub",
      "/root/clawd/sub",
      "sub",
    ]) {
      const response = await machine.fetch(`/files/list?path=${encodeURIComponent(path)}`);
      expect([path, response.status]).toEqual([path, 200]);
    }
    const own = await machine.fetch("/files/list?path=/data/.sidecar");
    expect([403, 404]).toContain(own.status);
  },
  LIMIT_MS,
);

test(
  "root on the machine needs no token: the local socket answers what the port refuses",
  async () => {
    using folder = tempDir();
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    const refused = await fetch(`http://127.0.0.1:${machine.ports.sidecar}/machine/status`);
    expect(refused.status).toBe(401);
    const answered = await fetch("http://localhost/machine/status", {
      unix: join(folder.path, "sidecar.sock"),
    });
    expect(await answered.json()).toMatchObject({ v: 1, state: "ready" });
  },
  LIMIT_MS,
);

test(
  "a machine on a volume without any room starts, lets its user make some, and goes on",
  async () => {
    using folder = tempDir();
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      writeFileSync(join(machine.dataDir, "workspace/one.md"), "one");
      await machine.sync();
      await machine.stop();
      rmSync(join(machine.dataDir, ".sidecar/ballast"));
    }
    const data = join(folder.path, "data");
    const full = `
      mount -t tmpfs -o size=24m tmpfs "$0.full" && cp -a "$0/." "$0.full" &&
      mount --move "$0.full" "$0" && { cat /dev/zero > "$0/workspace/film.mp4" || true; } && exec "$@"`;
    mkdirSync(`${data}.full`);
    const wrapper = ["unshare", "--mount", "--fork", "--kill-child", "sh", "-c", full, data];
    await using machine = await MachineProcess.start({ folder: folder.path, wrapper });
    await machine.untilReport(
      ({ services }) => services.some(({ name, ready }) => name === "gateway" && ready),
      "the gateway runs",
    );
    const gone = await machine.fetch("/files/delete?path=film.mp4", { method: "DELETE" });
    expect(gone.status).toBeLessThan(300);
    await until(() => machine.sync().catch(() => undefined), "the backup goes on", 90_000);
    expect(await machine.stop()).toBe(0);
  },
  LIMIT_MS,
);

test(
  "a volume that has become read-only halts the machine visibly: it stays up, says so, and commits nothing",
  async () => {
    using folder = tempDir();
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      await machine.sync();
      await machine.stop();
    }
    const data = join(folder.path, "data");
    const mounts = `mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"`;
    const wrapper = ["unshare", "--mount", "--fork", "--kill-child", "sh", "-c", mounts, data];
    await using machine = await MachineProcess.start({ folder: folder.path, wrapper });
    const report = await machine.untilReport(({ state }) => state === "degraded", "it is degraded");
    expect(JSON.stringify(report.reasons)).toContain("check that the volume can be written to");
    expect(report.services.find((service) => service.name === "gateway")?.state).toBe("initial");
    expect((await machine.fetch("/livez")).status).toBe(200);
    expect(await machine.stop()).toBe(0);
  },
  LIMIT_MS,
);

test.each([
  [
    "damaged",
    (path: string) => {
      // Of a page, the newest state may be in either.
      for (const suffix of ["", "-wal"]) {
        const fd = openSync(path + suffix, "r+");
        writeSync(fd, Buffer.alloc(fstatSync(fd).size, 0xa5), 0);
        closeSync(fd);
      }
    },
  ],
  ["deleted", (path: string) => rmSync(path)],
])(
  "an index that is %s while the machine runs is rebuilt, and the backup goes on",
  async (_, harm) => {
    using folder = tempDir();
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    const write = (text: string): void => {
      for (let n = 0; n < 1_000; n += 1) {
        writeFileSync(join(machine.dataDir, `workspace/${n}.txt`), `${text} ${n}`);
      }
    };
    write("before");
    await machine.sync();
    harm(join(machine.dataDir, ".sidecar/index.sqlite"));
    write("after");
    await machine.fetch("/machine/sync", { method: "POST" });
    await until(
      () => machine.lines.filter(({ state }) => state === "deciding").length > 1,
      "the damage is found, and the volume looked at anew",
      30_000,
    );
    await machine.untilReady();
    await machine.sync();
    expect(await machine.stop()).toBe(0);
    const before = describeVolume(machine.dataDir);
    wipe(machine.dataDir);
    await using again = await MachineProcess.start({ folder: folder.path });
    await again.untilReady();
    expect(describeVolume(again.dataDir)).toEqual(before);
  },
  LIMIT_MS,
);
