import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";

import { caddySpec } from "../../src/gateway/caddy-spec.ts";
import { ConfigFile } from "../../src/gateway/config-file.ts";
import { mergeConfig } from "../../src/gateway/config-merge.ts";
import { modelSource, openclawEnvironment } from "../../src/gateway/environment.ts";
import { findGateways } from "../../src/gateway/leftovers.ts";
import { openclawSpec } from "../../src/gateway/openclaw-spec.ts";
import { GatewaySession } from "../../src/gateway/session.ts";
import { systemClock } from "../../src/platform/clock.ts";
import type { ServiceSpec } from "../../src/supervisor/spec.ts";
import { capturedLog } from "../support/captured-log.ts";
import { freePorts } from "../support/free-ports.ts";
import { OpenclawClient } from "../support/openclaw-client.ts";
import { OpenclawDevice } from "../support/openclaw-device.ts";
import { installedCaddy, installedOpenclaw } from "../support/openclaw.ts";
import { runChild } from "../support/run-child.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const TOKEN = "token-of-a-test-gateway";
/** A start takes 4 to 9 s on an idle machine. */
const START_LIMIT_MS = 120_000;
const SESSION_LIMIT_MS = 60_000;
const LIMIT_MS = 240_000;

interface MachineOptions {
  readonly publicOrigin?: string;
  readonly port?: number;
}

/** All of this room around one volume, as machine.ts puts it together. */
async function machine(options: MachineOptions = {}) {
  const dir = tempDir();
  const [free = 0] = await freePorts(1);
  const port = options.port ?? free;
  for (const name of ["openclaw", "workspace", "home", ".sidecar"]) mkdirSync(join(dir.path, name));
  const log = capturedLog();
  const given = { PATH: process.env["PATH"] ?? "", AUTOMNA_PROXY_URL: "http://127.0.0.1:9" };
  const managed = {
    port,
    dataDir: dir.path,
    publicOrigin: options.publicOrigin,
    allowedOrigins: [],
    models: modelSource(given),
  };
  const config = new ConfigFile({ dataDir: dir.path, managed, clock: systemClock });
  const session = new GatewaySession({ port, token: TOKEN, clock: systemClock, log });
  const cures: string[] = [];
  const spec: ServiceSpec = openclawSpec({
    ...installedOpenclaw(),
    heapMb: 768,
    port,
    dataDir: dir.path,
    env: openclawEnvironment(given, { dataDir: dir.path, port, token: TOKEN }),
    session,
    prepare: async () => {
      await config.prepare();
    },
    onAdmitted: () => config.remember(),
    cure: async (refusal) => {
      cures.push(refusal);
      return (await config.restoreLastGood()) !== undefined;
    },
    isDiskFull: () => false,
    clock: systemClock,
    log,
  });
  return {
    path: dir.path,
    configFile: join(dir.path, "openclaw/openclaw.json"),
    port,
    spec,
    session,
    config,
    cures,
    log,
    async [Symbol.asyncDispose]() {
      await session.stop();
      await until(() => findGateways(join(dir.path, "openclaw")).length === 0, "its end", 20_000);
      dir[Symbol.dispose]();
    },
  };
}

test(
  "a new volume boots, is watched, and ends within its budget",
  async () => {
    await using own = await machine();
    await using child = await runChild(own.spec);
    await child.admitted(START_LIMIT_MS);
    expect(JSON.parse(readLastGood(own.path))).toHaveProperty("gateway.port", own.port);
    await until(() => own.session.identity, "the session", SESSION_LIMIT_MS);
    expect(own.session.identity?.pid).toBe(child.running.pid);
    expect(await own.session.request("health", {}, 10_000)).toMatchObject({ ok: true });
    const alive = own.spec.liveness?.probe(child.running, AbortSignal.timeout(10_000));
    expect(await alive).toBeUndefined();
    expect(findGateways(join(own.path, "openclaw"))).toContain(child.running.pid);
    const begun = performance.now();
    await own.spec.stop?.(child.running, {
      budgetMs: 76_000,
      signal: new AbortController().signal,
    });
    const exit = await child.exit;
    expect(exit.code).toBe(0);
    expect(performance.now() - begun).toBeLessThan(76_000);
    expect(own.log.lines.map(({ path }) => path)).toContain("drained");
    expect(own.session.connected).toBe(false);
  },
  LIMIT_MS,
);

test(
  "a config that OpenClaw refuses is replaced by the last good one, once",
  async () => {
    await using own = await machine();
    writeFileSync(own.configFile, "{}");
    await own.config.prepare();
    await own.config.remember();
    writeFileSync(own.configFile, '{ "frobnicate": 1, "gateway": { "mode": "local" } }');
    await using child = await runChild(own.spec);
    const exit = await child.exit;
    expect(exit.code).toBe(78);
    expect(await own.spec.judge?.(exit)).toMatchObject({ kind: "restart" });
    expect(own.cures).toEqual(["config"]);
    expect(JSON.parse(readFileSync(own.configFile, "utf8"))).not.toHaveProperty("frobnicate");
    expect(await own.spec.judge?.(exit)).toMatchObject({
      kind: "failed",
      reason: expect.stringContaining("does not accept its config"),
    });
  },
  LIMIT_MS,
);

test(
  "people reach the gateway through Caddy, from this computer and from others",
  async () => {
    const [localPort = 0, openPort = 0] = await freePorts(2);
    await using own = await machine({ publicOrigin: `http://127.0.0.1:${localPort}` });
    await using child = await runChild(own.spec);
    using dir = tempDir();
    const livez = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => Response.json({}) });
    const front = (port: number, publicOrigin: string) =>
      runChild(
        caddySpec({
          caddy: installedCaddy(),
          caddyfile: join(import.meta.dir, "../../../container/Caddyfile"),
          runtimeDir: join(dir.path, String(port)),
          ports: { sidecar: livez.port ?? 0, public: port, gateway: own.port },
          publicOrigin,
          path: process.env["PATH"] ?? "",
        }),
      );
    await using local = await front(localPort, `http://127.0.0.1:${localPort}`);
    await using open = await front(openPort, "https://one.test");
    await child.admitted(START_LIMIT_MS);
    await until(() => own.session.identity, "the session", SESSION_LIMIT_MS);

    const url = `ws://127.0.0.1:${localPort}/?token=hush-hush`;
    const { client, hello } = await OpenclawClient.connect(url, TOKEN);
    using connection = client;
    expect(hello["type"]).toBe("hello-ok");
    expect(await connection.call("health", {})).toMatchObject({ ok: true });
    const page = await fetch(`http://127.0.0.1:${localPort}/?token=hush-hush`);
    expect(page.headers.get("content-type")).toStartWith("text/html");
    await page.text();

    const address = otherAddress();
    if (address !== undefined) {
      const device = new OpenclawDevice();
      const far = `ws://${address}:${openPort}/?token=hush-hush`;
      expect(await device.connect(far, "a-wrong-token")).toStartWith("1008 unauthorized");
      // Without the token there is nothing to approve.
      const pairings = JSON.stringify(await connection.call("device.pair.list", {}));
      expect(pairings).not.toContain(device.id);
      // With it a pairing is asked for and approved, at times before the gateway has said that it is required.
      const scopes = await until(
        async () => {
          const granted = await device.connect(far, TOKEN);
          return typeof granted === "string" ? undefined : granted;
        },
        "the pairing to be approved",
        SESSION_LIMIT_MS,
      );
      expect(scopes).toContain("operator.admin");
    }
    const logged = [...local.lines, ...open.lines];
    expect(logged.some((line) => line.includes("hush-hush"))).toBe(false);
    await livez.stop(true);
  },
  LIMIT_MS,
);

test.each([
  ["behind our proxy", { AUTOMNA_PROXY_URL: "https://proxy.test" }],
  ["with the user's own key", { AUTOMNA_PROXY_URL: "https://proxy.test", BYOK_MODE: "true" }],
])(
  "OpenClaw accepts a merged config %s",
  async (_name, given) => {
    using dir = tempDir();
    const { node, entry } = installedOpenclaw();
    mkdirSync(join(dir.path, "openclaw"));
    mkdirSync(join(dir.path, "home"));
    const file = join(dir.path, "openclaw/openclaw.json");
    const managed = {
      port: 18_788,
      dataDir: dir.path,
      publicOrigin: "https://one.test",
      allowedOrigins: ["https://dashboard.test"],
      models: modelSource(given),
    };
    const user = { channels: { telegram: { enabled: true, dmPolicy: "pairing" } } };
    writeFileSync(file, JSON.stringify(mergeConfig(user, managed)));
    const env = openclawEnvironment(
      { ...given, PATH: process.env["PATH"] },
      { dataDir: dir.path, port: 18_788, token: TOKEN },
    );
    const command = [node, entry, "config", "validate", "--json"];
    const child = Bun.spawn(command, { env, cwd: dir.path, stdio: ["ignore", "pipe", "ignore"] });
    expect(JSON.parse(await new Response(child.stdout).text())).toMatchObject({
      valid: true,
      warnings: [],
    });
  },
  LIMIT_MS,
);

function readLastGood(dataDir: string): string {
  return readFileSync(join(dataDir, ".sidecar/last-good/openclaw.json"), "utf8");
}

/** An address of this computer that is not the loopback's; undefined where it has none. */
function otherAddress(): string | undefined {
  return Object.values(networkInterfaces())
    .flat()
    .find((address) => address && !address.internal && address.family === "IPv4")?.address;
}
