import { expect, test } from "bun:test";

import { planCommit } from "../../../src/backup/commit/plan.ts";
import { Index } from "../../../src/backup/index.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { changedFile, changedFolder } from "../../support/readings.ts";

function changedDatabase(path: string, content: string): Reading {
  const reading = changedFile(path, content);
  if (reading.kind !== "changed" || reading.item.entry.type !== "file") throw new Error(path);
  return { ...reading, item: { ...reading.item, entry: { ...reading.item.entry, sqlite: true } } };
}

test("a commit that has a database whole has no log beside it, known or new", () => {
  using index = new Index(":memory:");
  const known = [changedFile("x.db", "damaged"), changedFile("x.db-wal", "its log")].map(
    (reading) => {
      if (reading.kind !== "changed") throw new Error(reading.kind);
      return reading.item;
    },
  );
  index.restamp(known);
  const readings = [
    changedFile("x.db-journal", "one more"),
    changedFolder("x.db-shm"),
    changedDatabase("x.db", "whole again"),
    changedFile("y.db", "no database"),
    changedFile("y.db-wal", "no log"),
  ];
  const { items, deleted, members } = planCommit(readings, {
    index,
    position: 2,
    sent: new Map(),
  });
  expect(items.map(({ entry }) => entry.path).sort()).toEqual([
    "x.db",
    "x.db-shm",
    "y.db",
    "y.db-wal",
  ]);
  expect(deleted).toEqual(["x.db-wal"]);
  expect(members.size).toBe(3);
});
