import { expect, test } from "bun:test";

import { listProcesses, processInfo, residentBytes } from "../../src/supervisor/process-list.ts";
import type { ProcessInfo } from "../../src/supervisor/process-list.ts";
import { descendantsOf, sessionOf, treeBytes, union } from "../../src/supervisor/process-tree.ts";

function info(pid: number, parent: number, more: Partial<ProcessInfo> = {}): ProcessInfo {
  return { pid, parent, group: pid, session: pid, zombie: false, startTicks: pid * 10, ...more };
}

const pids = (list: readonly ProcessInfo[]) => list.map(({ pid }) => pid);

test("processInfo reads this process", () => {
  expect(processInfo(process.pid)).toMatchObject({
    pid: process.pid,
    parent: process.ppid,
    zombie: false,
  });
  expect(processInfo(0)).toBeUndefined();
  expect(listProcesses().some(({ pid }) => pid === process.pid)).toBe(true);
});

test("processInfo reads a name with brackets and spaces", async () => {
  const child = Bun.spawn(
    ["sh", "-c", "printf 'a) Z 1 (b' > /proc/self/comm; exec 3<&0; read x <&3"],
    {
      stdin: "pipe",
    },
  );
  try {
    expect(processInfo(child.pid)).toMatchObject({ parent: process.pid, zombie: false });
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
});

test("descendantsOf walks down, leaves out zombies and others", () => {
  const list = [
    info(1, 0),
    info(10, 1),
    info(11, 10),
    info(12, 11),
    info(13, 10, { zombie: true }),
    info(20, 1),
  ];
  expect(pids(descendantsOf(10, list))).toEqual([11, 12]);
  expect(pids(descendantsOf(1, list))).toEqual([10, 20, 11, 12]);
  expect(descendantsOf(99, list)).toEqual([]);
});

test("descendantsOf ends where a torn listing closes a circle", () => {
  expect(pids(descendantsOf(10, [info(10, 12), info(11, 10), info(12, 11)]))).toEqual([11, 12]);
});

test("sessionOf finds members with and without their leader, and nobody of a reused number", () => {
  const leader = info(10, 1);
  const member = info(11, 1, { session: 10 });
  expect(pids(sessionOf(leader, [leader, member, info(12, 1)]))).toEqual([10, 11]);
  expect(pids(sessionOf(leader, [member]))).toEqual([11]);
  expect(sessionOf(leader, [info(10, 1, { startTicks: 7 }), member])).toEqual([]);
});

test("union holds each process once", () => {
  expect(pids(union([info(1, 0), info(2, 1)], [info(2, 1), info(3, 1)]))).toEqual([1, 2, 3]);
});

test("treeBytes is at least this process's memory", () => {
  const own = residentBytes(process.pid);
  expect(own).toBeGreaterThan(10 * 1024 * 1024);
  expect(treeBytes(process.pid, listProcesses())).toBeGreaterThan(own / 2);
  expect(residentBytes(0)).toBe(0);
});
