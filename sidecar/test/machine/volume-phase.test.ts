import { expect, test } from "bun:test";

import { accessOf, causesOf, restingState, type Phase } from "../../src/machine/volume-phase.ts";

const phases: Readonly<Record<string, Phase>> = {
  deciding: { kind: "booting", status: { state: "deciding", message: "Looking" } },
  waiting: { kind: "booting", status: { state: "waiting", message: "No answer" } },
  restoring: { kind: "booting", status: { state: "restoring", message: "Bringing back" } },
  diverged: {
    kind: "halted",
    halt: { state: "halted", kind: "diverged", message: "Two histories" },
  },
  stranger: { kind: "halted", halt: { state: "halted", kind: "wrong_user", message: "Not yours" } },
  unsettled: { kind: "unsettled", sinceMs: 0 },
  settled: { kind: "settled" },
};

test.each([
  { is: "deciding", read: false, write: false, code: "booting", state: "idle", causes: [] },
  {
    is: "waiting",
    read: false,
    write: false,
    code: "waiting_for_store",
    state: "unreachable",
    causes: ["waiting_for_store"],
  },
  { is: "restoring", read: false, write: false, code: "restoring", state: "restoring", causes: [] },
  {
    is: "diverged",
    read: true,
    write: false,
    code: "halted",
    state: "diverged",
    causes: ["diverged"],
  },
  {
    is: "stranger",
    read: false,
    write: false,
    code: "halted",
    state: "halted",
    causes: ["wrong_user"],
  },
  {
    is: "unsettled",
    read: true,
    write: true,
    code: "ok",
    state: "unreachable",
    causes: ["unreachable"],
  },
  { is: "settled", read: true, write: true, code: "ok", state: "idle", causes: [] },
])(
  "a volume that is $is may be read: $read, written: $write",
  ({ is, state, causes, read, write, code }) => {
    const phase = phases[is] ?? { kind: "settled" };
    expect(accessOf(phase, { fenced: undefined, progress: undefined })).toMatchObject({
      read,
      write,
      code,
    });
    expect<string>(restingState(phase)).toBe(state);
    expect(causesOf(phase).map(({ kind }) => kind)).toEqual([...causes]);
  },
);

test("a fenced volume can be read and not written", () => {
  const access = accessOf({ kind: "settled" }, { fenced: "Another machine", progress: undefined });
  expect(access).toEqual({ read: true, write: false, code: "fenced", message: "Another machine" });
});

test("a volume that is coming back says how far it is", () => {
  const progress = { files: 10, filesDone: 5, bytes: 2 ** 20, bytesDone: 2 ** 19, etaS: 3 };
  const { message } = accessOf(phases["restoring"] ?? { kind: "settled" }, {
    fenced: undefined,
    progress,
  });
  expect(message).toBe("Bringing back: 5 of 10 files, 0.5 of 1.0 MiB, 3 s left");
});

test("a volume whose store cannot be used says what the store said", () => {
  const phase: Phase = { kind: "unsettled", sinceMs: 0, reason: "the store answers 403" };
  expect(causesOf(phase)[0]?.message).toContain("the store answers 403");
  expect(accessOf(phase, { fenced: undefined, progress: undefined }).message).toContain("403");
});
