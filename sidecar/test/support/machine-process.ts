import { mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

import type { Subprocess } from "bun";

import { reportSchema, type Report } from "../../src/health/report.ts";
import { freePorts } from "./free-ports.ts";
import { until } from "./until.ts";

const MAIN = resolve(import.meta.dir, "../../src/main.ts");

export interface MachineOptions {
  /** Holds data/, store/ and whatever the test adds; reuse it to boot the same machine again. */
  readonly folder: string;
  /** Overrides and additions; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What stands before the command, such as ["unshare", "--pid", …]. */
  readonly wrapper?: readonly string[];
}

/** main.ts as a real process, with a volume and a store in a folder of the test's. Disposing kills it and its children. */
export class MachineProcess implements AsyncDisposable {
  readonly dataDir: string;
  readonly token: string;
  readonly ports: { readonly sidecar: number; readonly public: number; readonly gateway: number };
  /** Every line it printed, parsed; a line that is no JSON object is kept as {"raw": line}. */
  readonly lines: Record<string, unknown>[] = [];
  readonly #process: Subprocess<"ignore", "pipe", "pipe">;
  readonly #wrapped: boolean;
  readonly #reading: Promise<unknown>;

  private constructor(
    folder: string,
    launch: {
      readonly ports: readonly number[];
      readonly env: Readonly<Record<string, string>>;
      readonly wrapper: readonly string[];
    },
  ) {
    const [sidecar = 0, publicPort = 0, gateway = 0] = launch.ports;
    this.ports = { sidecar, public: publicPort, gateway };
    this.dataDir = launch.env["DATA_DIR"] ?? join(folder, "data");
    this.token = launch.env["OPENCLAW_GATEWAY_TOKEN"] ?? "";
    this.#wrapped = launch.wrapper.length > 0;
    this.#process = Bun.spawn([...launch.wrapper, process.execPath, MAIN], {
      env: launch.env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      cwd: "/",
    });
    this.#reading = Promise.all([
      this.#read(this.#process.stdout),
      this.#read(this.#process.stderr),
    ]);
  }

  static async start(options: MachineOptions): Promise<MachineProcess> {
    const { folder, env = {}, wrapper = [] } = options;
    const ports = await freePorts(3);
    mkdirSync(join(folder, "data"), { recursive: true });
    const settings: Record<string, string | undefined> = {
      PATH: process.env["PATH"],
      HOME: folder,
      USER_ID: "user-1",
      OPENCLAW_GATEWAY_TOKEN: "test-token-0123456789",
      DATA_DIR: join(folder, "data"),
      BACKUP_URL: `file://${join(folder, "store")}`,
      PORT: String(ports[0]),
      PUBLIC_PORT: String(ports[1]),
      GATEWAY_PORT: String(ports[2]),
      PUBLIC_ORIGIN: `http://127.0.0.1:${ports[1]}`,
      GATEWAY_COMMAND: JSON.stringify([
        process.execPath,
        resolve(import.meta.dir, "../fixtures/stub-gateway.ts"),
      ]),
      SIDECAR_OPENCLAW_DIR: resolve(import.meta.dir, "../../../.local/openclaw"),
      SIDECAR_DROP_PRIVILEGES: "off",
      SIDECAR_SOCKET: join(folder, "sidecar.sock"),
      SIDECAR_RUNTIME_DIR: join(folder, "run"),
      ...env,
    };
    const set = Object.entries(settings).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    );
    return new MachineProcess(folder, { ports, env: Object.fromEntries(set), wrapper });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The exit code; 128 + n where signal n ended it. */
  get exited(): Promise<number> {
    return this.#process.exited.then(async (code) => {
      await this.#reading;
      return code;
    });
  }

  /** To the sidecar itself, where it runs in a namespace of its own as well. */
  signal(name: NodeJS.Signals): void {
    const { pid } = this.#process;
    const inner = this.#wrapped ? readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8") : "";
    process.kill(inner === "" ? pid : Number(inner.split(" ")[0]), name);
  }

  /** A request to the sidecar itself, with the token. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return this.#fetch(this.ports.sidecar, path, init);
  }

  /** The same through Caddy. */
  fetchPublic(path: string, init: RequestInit = {}): Promise<Response> {
    return this.#fetch(this.ports.public, path, init);
  }

  async report(): Promise<Report> {
    return reportSchema.parse(await (await this.fetch("/machine/status")).json());
  }

  /** Waits until the report satisfies `condition`; fails early, with the last lines, when the machine exits. */
  async untilReport(
    condition: (report: Report) => boolean,
    what: string,
    limitMs = 30_000,
  ): Promise<Report> {
    let last: Report | undefined;
    try {
      return await until(
        async () => {
          if (this.#process.exitCode !== null)
            throw new Error(`the machine exited with ${this.#process.exitCode}`);
          last = await this.report().catch(() => undefined);
          return last && condition(last) ? last : undefined;
        },
        what,
        limitMs,
      );
    } catch (error) {
      throw new Error(`${what}: ${JSON.stringify(last)}\n${this.tail()}`, { cause: error });
    }
  }

  untilReady(limitMs = 60_000): Promise<Report> {
    return this.untilReport((report) => report.state === "ready", "the machine is ready", limitMs);
  }

  /** Waits until everything on the volume is in the store. */
  async sync(): Promise<{ readonly position: number; readonly lagMs: number }> {
    const response = await this.fetch("/machine/sync", { method: "POST" });
    const body = (await response.json()) as { position: number; lagMs: number };
    if (!response.ok) throw new Error(`Cannot sync: ${JSON.stringify(body)}\n${this.tail()}`);
    return body;
  }

  /** Stops it as the platform does; resolves to the exit code. */
  async stop(): Promise<number> {
    this.signal("SIGTERM");
    return this.exited;
  }

  tail(count = 30): string {
    return this.lines
      .slice(-count)
      .map((line) => JSON.stringify(line))
      .join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      // A graceful end first: it is the sidecar that knows its children.
      this.signal("SIGTERM");
      const late = AbortSignal.timeout(20_000);
      const kill = (): void => this.signal("SIGKILL");
      late.addEventListener("abort", kill);
      await this.#process.exited;
      late.removeEventListener("abort", kill);
    }
  }

  #fetch(port: number, path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has("authorization")) headers.set("authorization", `Bearer ${this.token}`);
    return fetch(`http://127.0.0.1:${port}${path}`, {
      signal: AbortSignal.timeout(30_000),
      ...init,
      headers,
      redirect: "manual",
    });
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    let rest = "";
    for await (const chunk of stream.pipeThrough(
      new TextDecoderStream() as never,
    ) as unknown as AsyncIterable<string>) {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) this.lines.push(parseLine(line));
    }
    if (rest !== "") this.lines.push(parseLine(rest));
  }
}

function parseLine(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    if (value !== null && typeof value === "object") return value as Record<string, unknown>;
  } catch {
    // Kept as it is below: that it is no JSON is for the test to notice.
  }
  return { raw: line };
}
