import { expect, test } from "bun:test";
import { join } from "node:path";

import { z } from "zod";

import { parseConfig } from "../src/config.ts";

const ROOT = join(import.meta.dir, "../..");
const NS_PER_S = 1_000_000_000;

const Check = z.strictObject({
  type: z.literal("http"),
  port: z.int().optional(),
  method: z.string(),
  path: z.string(),
  interval: z.string(),
  timeout: z.string(),
  grace_period: z.string(),
});
const Ports = z.array(
  z.strictObject({
    port: z.int(),
    handlers: z.array(z.string()),
    force_https: z.boolean().optional(),
  }),
);
const Metrics = z.strictObject({ port: z.int(), path: z.string() });

const FlyToml = z.strictObject({
  app: z.string(),
  primary_region: z.string(),
  kill_signal: z.string(),
  kill_timeout: z.int(),
  build: z.strictObject({ dockerfile: z.string() }),
  env: z.record(z.string(), z.string()),
  restart: z.tuple([z.strictObject({ policy: z.string(), retries: z.int() })]),
  mounts: z.tuple([
    z.strictObject({
      source: z.string(),
      destination: z.string(),
      initial_size: z.string(),
      auto_extend_size_threshold: z.int(),
      auto_extend_size_increment: z.string(),
      auto_extend_size_limit: z.string(),
    }),
  ]),
  services: z.tuple([
    z.strictObject({
      protocol: z.string(),
      internal_port: z.int(),
      auto_stop_machines: z.string(),
      auto_start_machines: z.boolean(),
      min_machines_running: z.int(),
      ports: Ports,
      http_checks: z.array(Check.omit({ type: true })),
    }),
  ]),
  checks: z.record(z.string(), Check),
  metrics: Metrics,
  vm: z.tuple([z.strictObject({ size: z.literal("shared-cpu-1x"), memory: z.int() })]),
});

const MachineConfig = z.strictObject({
  image: z.string(),
  env: z.record(z.string(), z.string()),
  guest: z.strictObject({ cpu_kind: z.string(), cpus: z.int(), memory_mb: z.int() }),
  restart: z.strictObject({ policy: z.string(), max_retries: z.int() }),
  stop_config: z.strictObject({ signal: z.string(), timeout: z.int() }),
  mounts: z.tuple([
    z.strictObject({
      name: z.string(),
      volume: z.string(),
      path: z.string(),
      extend_threshold_percent: z.int(),
      add_size_gb: z.int(),
      size_gb_limit: z.int(),
    }),
  ]),
  services: z.tuple([
    z.strictObject({
      protocol: z.string(),
      internal_port: z.int(),
      autostop: z.string(),
      autostart: z.boolean(),
      min_machines_running: z.int(),
      ports: Ports,
      checks: z.array(Check),
    }),
  ]),
  checks: z.record(z.string(), Check),
  metrics: Metrics,
});

test("fly.toml and the Machines API config describe the same machine", async () => {
  const { image, mounts, ...machine } = await readMachineConfig();
  const { volume, ...mount } = mounts[0];

  expect(image).toContain((await readFlyToml()).app);
  expect(volume).not.toBe("");
  const described: unknown = { ...machine, mounts: [mount] };
  expect(described).toEqual(asMachineConfig(await readFlyToml()));
});

test("the platform's time to stop is the one the sidecar reckons with by default", async () => {
  const defaults = parseConfig({ USER_ID: "u1", OPENCLAW_GATEWAY_TOKEN: "0123456789" });

  expect((await readFlyToml()).kill_timeout * 1_000).toBe(defaults.killTimeoutMs);
  expect((await readMachineConfig()).stop_config.timeout / 1_000_000).toBe(defaults.killTimeoutMs);
});

test("the platform's ports and folder are the sidecar's defaults", async () => {
  const defaults = parseConfig({ USER_ID: "u1", OPENCLAW_GATEWAY_TOKEN: "0123456789" });
  const toml = await readFlyToml();

  expect(toml.services[0].internal_port).toBe(defaults.ports.public);
  expect(toml.checks["ready"]?.port).toBe(defaults.ports.sidecar);
  expect(toml.metrics.port).toBe(defaults.ports.sidecar);
  expect(toml.mounts[0].destination).toBe(defaults.dataDir);
});

async function readFlyToml(): Promise<z.infer<typeof FlyToml>> {
  return FlyToml.parse(Bun.TOML.parse(await Bun.file(join(ROOT, "fly.toml")).text()));
}

async function readMachineConfig(): Promise<z.infer<typeof MachineConfig>> {
  return MachineConfig.parse(await Bun.file(join(ROOT, "docs/machine-config.json")).json());
}

/** What fly.toml says, in the words of the Machines API and without what only one of the two can say. */
function asMachineConfig(toml: z.infer<typeof FlyToml>) {
  const [mount] = toml.mounts;
  const [service] = toml.services;
  return {
    env: toml.env,
    guest: { cpu_kind: "shared", cpus: 1, memory_mb: toml.vm[0].memory },
    restart: { policy: toml.restart[0].policy, max_retries: toml.restart[0].retries },
    stop_config: { signal: toml.kill_signal, timeout: toml.kill_timeout * NS_PER_S },
    mounts: [
      {
        name: mount.source,
        path: mount.destination,
        extend_threshold_percent: mount.auto_extend_size_threshold,
        add_size_gb: gigabytes(mount.auto_extend_size_increment),
        size_gb_limit: gigabytes(mount.auto_extend_size_limit),
      },
    ],
    services: [
      {
        protocol: service.protocol,
        internal_port: service.internal_port,
        autostop: service.auto_stop_machines,
        autostart: service.auto_start_machines,
        min_machines_running: service.min_machines_running,
        ports: service.ports,
        checks: service.http_checks.map((check) => ({ type: "http", ...check })),
      },
    ],
    checks: toml.checks,
    metrics: toml.metrics,
  };
}

function gigabytes(size: string): number {
  return Number(/^(\d+)GB$/.exec(size)?.[1]);
}
