import { expect, setDefaultTimeout, test } from "bun:test";

import { systemClock } from "../../src/platform/clock.ts";
import type { ServiceLine } from "../../src/supervisor/child-log.ts";
import type { ServiceSpec } from "../../src/supervisor/spec.ts";
import { Supervisor } from "../../src/supervisor/supervisor.ts";
import { capturedLog } from "../support/captured-log.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(30_000);

function sh(name: string, script: string): ServiceSpec {
  const env = { PATH: process.env["PATH"] ?? "/usr/bin:/bin" };
  return {
    name,
    launch: () => Promise.resolve({ command: ["sh", "-c", script], cwd: "/", env }),
  };
}

/** Not booted: becoming the parent of all orphans is for a process of its own. */
function supervise(...specs: ServiceSpec[]) {
  const log = capturedLog();
  const supervisor = new Supervisor(specs, {
    clock: systemClock,
    log,
    redact: (line) => line.replaceAll("hush", "***"),
  });
  const status = (name: string) => supervisor.measuredStatuses().find((one) => one.name === name);
  return {
    supervisor,
    log,
    status,
    async [Symbol.asyncDispose]() {
      await supervisor.stop(supervisor.names, { budgetMs: 100 });
      supervisor.end();
    },
  };
}

test("Supervisor starts and stops its services one by one and together", async () => {
  await using machine = supervise(sh("web", "exec sleep 60"), sh("app", "exec sleep 60"));
  const { supervisor, status } = machine;
  await supervisor.start("web");
  expect(status("web")).toMatchObject({ state: "running", ready: true });
  expect(status("app")).toMatchObject({ state: "initial", memoryBytes: undefined });
  await supervisor.start("app");
  await supervisor.stop(["web"], { budgetMs: 5_000 });
  expect(supervisor.statuses().map(({ state }) => state)).toEqual(["stopped", "running"]);
  await supervisor.stop(["web", "app"], { budgetMs: 5_000 });
  expect(supervisor.statuses().map(({ state }) => state)).toEqual(["stopped", "stopped"]);
});

test("Supervisor restarts by name, with another process", async () => {
  await using machine = supervise(sh("web", "exec sleep 60"));
  const { supervisor, status } = machine;
  await supervisor.start("web");
  const before = status("web")?.pid;
  await supervisor.restart("web");
  expect(status("web")).toMatchObject({ state: "running", restarts: 1 });
  expect(status("web")?.pid).not.toBe(before);
});

test("Supervisor counts the memory of a service's whole tree", async () => {
  await using machine = supervise(
    sh("web", `${process.execPath} -e 'setTimeout(() => {}, 60000)' & echo up; wait`),
  );
  await machine.supervisor.start("web");
  await until(
    () => Number(machine.status("web")?.memoryBytes) > 15 * 1024 * 1024,
    "the memory of a grandchild",
  );
});

test("Supervisor keeps and passes on the lines of its services, redacted", async () => {
  await using machine = supervise(sh("web", "echo token hush; echo next >&2; exec sleep 60"));
  const { supervisor } = machine;
  const followed: ServiceLine[] = [];
  const unfollow = supervisor.follow((line) => followed.push(line));
  await supervisor.start("web");
  await until(() => followed.length === 2, "two lines");
  expect(
    supervisor
      .logs("web", 10)
      .map(({ line }) => line)
      .toSorted(),
  ).toEqual(["next", "token ***"]);
  unfollow();
  await supervisor.restart("web");
  await until(() => supervisor.logs("web", 10).length === 4, "two more lines");
  expect(followed).toHaveLength(2);
});

test("Supervisor starts nothing once it is closing, and stops all the same", async () => {
  await using machine = supervise(sh("web", "exec sleep 60"));
  const { supervisor, status } = machine;
  await supervisor.start("web");
  supervisor.close();
  await expect(supervisor.start("web")).rejects.toThrow(
    'Cannot start "web": the machine is stopping',
  );
  await expect(supervisor.restart("web")).rejects.toThrow(
    'Cannot restart "web": the machine is stopping',
  );
  expect(status("web")?.state).toBe("running");
  await supervisor.stop(["web"], { budgetMs: 5_000 });
  expect(status("web")?.state).toBe("stopped");
});

test("Supervisor knows no other names", async () => {
  await using machine = supervise(sh("web", "exec sleep 60"));
  const { supervisor } = machine;
  await expect(supervisor.start("db")).rejects.toThrow('Cannot start "db": no such service');
  await expect(supervisor.stop(["db"], { budgetMs: 1 })).rejects.toThrow("no such service");
  expect(() => supervisor.logs("db", 1)).toThrow("no such service");
});

test("hurry ends a stop under way", async () => {
  await using machine = supervise(sh("web", "trap '' TERM; echo up; while :; do sleep 0.1; done"));
  const { supervisor } = machine;
  await supervisor.start("web");
  await until(() => supervisor.logs("web", 1).length > 0, "the trap to be set");
  const stopped = supervisor.stop(["web"], { budgetMs: 600_000 });
  supervisor.hurry();
  await stopped;
  expect(machine.status("web")).toMatchObject({
    state: "stopped",
    lastExit: { signal: "SIGKILL" },
  });
});

test("Supervisor logs a death with its last words, and what stays down as an error", async () => {
  await using machine = supervise({
    ...sh("web", "echo sorry hush; exit 9"),
    judge: () => ({ kind: "failed", reason: "not cured" }),
  });
  await machine.supervisor.start("web");
  await until(() => machine.status("web")?.state === "failed", "the verdict");
  expect(machine.log.lines).toContainEqual(
    expect.objectContaining({
      level: "warn",
      service: "web",
      code: 9,
      lastLines: ["sorry ***"],
      message: "Service ended unasked",
    }),
  );
  expect(machine.log.lines.at(-1)).toMatchObject({
    level: "error",
    service: "web",
    state: "failed",
    reason: "not cured",
  });
});
