import { expect, test } from "bun:test";

import { PrefixedStore } from "../../src/store/prefixed.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { testStore } from "./contract.ts";

let clock = new ManualClock();

testStore("PrefixedStore", {
  open: async () => {
    clock = new ManualClock();
    return new PrefixedStore(new MemoryStore(clock), "users/u1/");
  },
  tick: () => clock.advance(1_000),
});

test("PrefixedStore sees only what is below its prefix", async () => {
  const all = new MemoryStore();
  const one = new PrefixedStore(all, "users/1/backup/");
  const other = new PrefixedStore(all, "users/10/backup/");
  await one.put("a", new Uint8Array(1));
  await other.put("a", new Uint8Array(2));
  await all.put("users/1/backupx", new Uint8Array(3));
  expect(all.keys).toEqual(["users/1/backup/a", "users/1/backupx", "users/10/backup/a"]);
  expect((await one.list("")).objects).toMatchObject([{ key: "a", sizeBytes: 1 }]);
  expect((await other.list("", { after: "0" })).objects).toMatchObject([
    { key: "a", sizeBytes: 2 },
  ]);
  expect(await other.head("a")).toMatchObject({ key: "a", sizeBytes: 2 });
  await one.delete(["a"]);
  expect(all.keys).toEqual(["users/1/backupx", "users/10/backup/a"]);
  expect(one.name).toBe("memory/users/1/backup");
});

test.each(["", "/", "users", "/users/", "users//", "../", "a b/"])(
  "PrefixedStore refuses the prefix %j",
  (prefix) => {
    expect(() => new PrefixedStore(new MemoryStore(), prefix)).toThrow("Cannot use the ");
  },
);
