import { expect, test } from "bun:test";

import * as fc from "fast-check";

import { decide, type StoreFacts } from "../../../src/backup/boot/decide.ts";
import type { MarkerReading } from "../../../src/volume/marker.ts";

const MISSING: MarkerReading = { kind: "missing" };
const DAMAGED: MarkerReading = { kind: "damaged", message: "bad" };
const NEWER: MarkerReading = { kind: "newer", message: "new" };
const OFF: StoreFacts = { kind: "off" };
const AWAY: StoreFacts = { kind: "unreachable" };
const EMPTY = known(0);

function marked(state: "ready" | "restoring", position: number, user = "me"): MarkerReading {
  return { kind: "ok", marker: { version: 1, user, state, position } };
}

function known(
  head: number,
  rest: Partial<Extract<StoreFacts, { kind: "known" }>> = {},
): StoreFacts {
  return {
    kind: "known",
    head,
    at: 0,
    sameHistory: true,
    nextIsOurs: false,
    treeEquals: undefined,
    ...rest,
  };
}

test.each([
  // The table of the design, row by row.
  ["empty, no commits", MISSING, false, EMPTY, "new"],
  ["empty, commits", MISSING, false, known(3), "restore"],
  ["empty, store away", MISSING, false, AWAY, "wait"],
  ["restoring, store known", marked("restoring", 3), true, known(4), "resume"],
  ["restoring, nothing placed yet", marked("restoring", 3), false, known(3), "resume"],
  ["restoring, store away", marked("restoring", 3), false, AWAY, "resume"],
  ["files without marker, no commits", MISSING, true, EMPTY, "adopt"],
  ["files without marker, commits", MISSING, true, known(3), "diverged"],
  ["ready at the head", marked("ready", 3), true, known(3, { at: 3 }), "continue"],
  [
    "ready, next is ours",
    marked("ready", 3),
    true,
    known(4, { at: 3, nextIsOurs: true }),
    "record-own",
  ],
  ["ready, others beyond", marked("ready", 3), true, known(9, { at: 3 }), "compare"],
  [
    "ready, others beyond, equal",
    marked("ready", 3),
    true,
    known(9, { at: 3, treeEquals: true }),
    "restore-forward",
  ],
  [
    "ready, others beyond, differs",
    marked("ready", 3),
    true,
    known(9, { at: 3, treeEquals: false }),
    "diverged",
  ],
  ["another user's", marked("ready", 3, "you"), true, known(3, { at: 3 }), "wrong-user"],
  // What the table does not name.
  ["another user's, restoring", marked("restoring", 3, "you"), false, EMPTY, "wrong-user"],
  ["another user's, backup off", marked("ready", 0, "you"), true, OFF, "wrong-user"],
  ["another user's, store away", marked("ready", 0, "you"), false, AWAY, "wrong-user"],
  ["empty, backup off", MISSING, false, OFF, "new"],
  ["files without marker, backup off", MISSING, true, OFF, "adopt"],
  ["files without marker, store away", MISSING, true, AWAY, "wait"],
  ["ready, backup off", marked("ready", 3), true, OFF, "continue"],
  ["restoring, backup off", marked("restoring", 3), false, OFF, "continue"],
  ["ready, store away", marked("ready", 3), true, AWAY, "continue"],
  ["ready but emptied, store away", marked("ready", 3), false, AWAY, "wait"],
  [
    "new machine cut off before its first file, store away",
    marked("ready", 0),
    false,
    AWAY,
    "continue",
  ],
  ["new machine cut off before its first file", marked("ready", 0), false, EMPTY, "continue"],
  ["ready but emptied", marked("ready", 3), false, known(3, { at: 3 }), "restore"],
  ["ready, never backed up, history by others", marked("ready", 0), true, known(2), "compare"],
  ["ready, the history is shorter", marked("ready", 3), true, known(2, { at: 3 }), "diverged"],
  ["ready, the history is gone", marked("ready", 3), true, known(0, { at: 3 }), "diverged"],
  [
    "ready and emptied, the history is gone",
    marked("ready", 3),
    false,
    known(0, { at: 3 }),
    "diverged",
  ],
  [
    "ready, another history",
    marked("ready", 3),
    true,
    known(3, { at: 3, sameHistory: false }),
    "diverged",
  ],
  ["restoring, the history is gone", marked("restoring", 3), false, known(0), "diverged"],
  ["damaged marker on an empty volume", DAMAGED, false, EMPTY, "damaged-marker"],
  ["damaged marker, backup off", DAMAGED, true, OFF, "damaged-marker"],
  ["newer marker", NEWER, true, known(3), "newer"],
] as const)("decide answers %s", (...[, marker, files, store, kind]) => {
  expect(decide({ user: "me", marker, files, store }).kind).toBe(kind);
});

const markers = fc.oneof(
  fc.constantFrom(MISSING, DAMAGED, NEWER),
  fc
    .tuple(
      fc.constantFrom("ready" as const, "restoring" as const),
      fc.nat(5),
      fc.constantFrom("me", "you"),
    )
    .map(([state, position, user]) => marked(state, position, user)),
);
const stores = fc.oneof(
  fc.constantFrom(OFF, AWAY),
  fc
    .record({
      head: fc.nat(6),
      at: fc.nat(6),
      sameHistory: fc.boolean(),
      nextIsOurs: fc.boolean(),
      treeEquals: fc.constantFrom(undefined, true, false),
    })
    .map((facts) => known(facts.head, facts)),
);

test("decide never calls a machine new, adopts or continues where a past could be lost", () => {
  fc.assert(
    fc.property(markers, fc.boolean(), stores, (marker, files, store) => {
      const { kind } = decide({ user: "me", marker, files, store });
      if (kind === "new") {
        expect([marker.kind, files]).toEqual(["missing", false]);
        expect(store.kind === "off" || (store.kind === "known" && store.head === 0)).toBe(true);
      }
      if (kind === "adopt") expect(store.kind === "known" && store.head > 0).toBe(false);
      if (kind === "restore") expect(files).toBe(false);
      if (kind === "continue" && store.kind === "known") {
        expect(store.head).toBe(store.at);
        expect(marker.kind === "ok" && marker.marker.state).toBe("ready");
      }
      if (marker.kind === "ok" && marker.marker.user !== "me") expect(kind).toBe("wrong-user");
    }),
  );
});
