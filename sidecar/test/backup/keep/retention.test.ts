import { expect, test } from "bun:test";

import * as fc from "fast-check";

import { keys } from "../../../src/backup/format/format.ts";
import {
  isDoomed,
  keepsCheckpoint,
  keepsCommit,
  planRetention,
  type Retention,
} from "../../../src/backup/keep/retention.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** A Friday. */
const NOW = Date.UTC(2026, 10, 20, 12);

/** Positions of the checkpoints that stay, of checkpoints so many days old (position 1 is the oldest). */
function keptOf(ages: readonly number[], pins: readonly number[] = []): number[] | undefined {
  const oldestFirst = [...ages].sort((a, b) => b - a);
  const checkpoints = oldestFirst.map((age, at) => ({ position: at + 1, timeMs: NOW - age * DAY }));
  const retention = planRetention({ nowMs: NOW, head: ages.length, checkpoints, pins });
  return (
    retention &&
    checkpoints
      .map(({ position }) => position)
      .filter((position) => keepsCheckpoint(retention, position))
  );
}

test.each([
  ["no checkpoint", [], undefined],
  ["none a week old", [6, 3, 1], undefined],
  ["one a week old", [8, 3, 1], [1, 2, 3]],
  ["two on one day", [9.3, 9.2, 7.1, 1], [2, 3, 4]],
  ["one a day for 30 days", [29.2, 29.1, 28, 27, 8], [2, 3, 4, 5]],
  ["one a week after 30 days", [48, 47, 46, 45, 8], [2, 4, 5]],
  ["none after 26 weeks", [183, 170, 8], [2, 3]],
] as const)("retention of %s", (_name, ages, kept) => {
  expect(keptOf(ages)).toEqual(kept === undefined ? undefined : [...kept]);
});

test("retention keeps a pinned position with the checkpoint before it and the commits between", () => {
  const checkpoints = [
    { position: 10, timeMs: NOW - 300 * DAY },
    { position: 20, timeMs: NOW - 290 * DAY },
    { position: 30, timeMs: NOW - 8 * DAY },
  ];
  const plan = (pins: readonly number[]): Retention | undefined =>
    planRetention({ nowMs: NOW, head: 40, checkpoints, pins });
  expect(plan([])).toMatchObject({ floor: 30, commits: [] });
  expect([...(plan([])?.checkpoints ?? [])]).toEqual([]);
  expect(plan([15, 18, 12])).toMatchObject({ commits: [{ after: 10, to: 18 }] });
  expect([...(plan([15])?.checkpoints ?? [])]).toEqual([10]);
  expect(plan([20])?.commits).toEqual([]);
  expect(plan([5])?.commits).toEqual([{ after: 0, to: 5 }]);
  expect(plan([35, 0])?.commits).toEqual([]);
});

test("retention keeps the head where nothing came after the last checkpoint", () => {
  const checkpoints = [{ position: 7, timeMs: NOW - 50 * DAY }];
  const retention = planRetention({ nowMs: NOW, head: 7, checkpoints, pins: [] });
  if (!retention) throw new Error("nothing is planned");
  expect([6, 7].map((position) => keepsCommit(retention, position))).toEqual([false, true]);
});

test("retention leaves alone what is no object of a history", () => {
  const checkpoints = [{ position: 7, timeMs: NOW - 50 * DAY }];
  const retention = planRetention({ nowMs: NOW, head: 9, checkpoints, pins: [] });
  if (!retention) throw new Error("nothing is planned");
  const doomed = [
    "pins/mine",
    "branches/m-1/commits/0000000003.tar.zst",
    "probe/conditional-put",
    "blobs/readme.txt",
    "commits/notes",
    "checkpoints/0000000003/manifest.json",
    keys.commit(3),
    keys.manifest(3),
    keys.blob("a".repeat(64)),
    "checkpoints/0000000003/part-0001.tar.zst",
    "checkpoints/0000000007/part-0001.tar.zst",
  ].filter((key) => isDoomed(key, { retention, references: new Set() }));
  expect(doomed).toEqual([
    keys.commit(3),
    keys.manifest(3),
    keys.blob("a".repeat(64)),
    "checkpoints/0000000003/part-0001.tar.zst",
  ]);
});

/** What happens to a volume, one after the other. */
type Step =
  | { readonly kind: "write"; readonly path: number; readonly content: number }
  | { readonly kind: "delete"; readonly path: number }
  | { readonly kind: "checkpoint"; readonly repack: boolean }
  | { readonly kind: "pin" }
  | { readonly kind: "rest"; readonly hours: number }
  | { readonly kind: "remove" };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("write" as const),
        path: fc.nat(4),
        content: fc.nat(8),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("delete" as const), path: fc.nat(4) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("checkpoint" as const), repack: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: "pin" as const }) },
    {
      weight: 5,
      arbitrary: fc.record({ kind: fc.constant("rest" as const), hours: fc.nat(24 * 20) }),
    },
    { weight: 2, arbitrary: fc.constant({ kind: "remove" as const }) },
  ),
  { maxLength: 200, size: "max" },
);

type Tree = ReadonlyMap<number, string>;

/** A store that holds only which object needs which. */
class Model {
  readonly trees: Tree[] = [new Map()];
  readonly commits = new Map<
    number,
    { readonly path: number; readonly object: string | undefined }
  >();
  readonly manifests = new Map<number, { readonly timeMs: number; readonly tree: Tree }>();
  readonly objects = new Map<string, number>();
  readonly pins: number[] = [];
  /** What the machine takes to be in the store, by content. */
  readonly known = new Map<number, string>();
  live = new Map<number, { readonly content: number; readonly object: string }>();
  nowMs = NOW;

  get head(): number {
    return this.trees.length - 1;
  }

  step(step: Step): void {
    this.nowMs += HOUR;
    switch (step.kind) {
      case "write": {
        const position = this.head + 1;
        const isSmall = step.content % 2 === 0;
        const own = isSmall
          ? keys.commit(position)
          : keys.blob(String(step.content).padStart(64, "0"));
        const object = this.known.get(step.content) ?? own;
        if (object === own && !this.objects.has(own)) this.objects.set(own, this.nowMs);
        this.known.set(step.content, object);
        this.live.set(step.path, { content: step.content, object });
        this.#commit(step.path, object);
        return;
      }
      case "delete":
        if (this.live.delete(step.path)) this.#commit(step.path, undefined);
        return;
      case "checkpoint":
        if (this.head > 0 && !this.manifests.has(this.head)) this.#checkpoint(step.repack);
        return;
      case "pin":
        this.pins.push(this.head);
        return;
      case "rest":
        this.nowMs += step.hours * HOUR;
        return;
      case "remove":
        this.remove();
        return;
    }
  }

  remove(): void {
    const retention = planRetention({
      nowMs: this.nowMs,
      head: this.head,
      checkpoints: [...this.manifests].map(([position, { timeMs }]) => ({ position, timeMs })),
      pins: this.pins,
    });
    if (!retention) return;
    const references = new Set<string>();
    for (const [position, { tree }] of this.manifests) {
      if (retention.checkpoints.has(position) || position === retention.floor)
        for (const object of tree.values()) references.add(object);
    }
    for (const [position, { object }] of this.commits) {
      if (keepsCommit(retention, position) && object !== undefined) references.add(object);
    }
    const doomed = (key: string): boolean => isDoomed(key, { retention, references });
    for (const [content, object] of this.known) if (doomed(object)) this.known.delete(content);
    for (const position of this.manifests.keys()) {
      if (doomed(keys.manifest(position))) this.manifests.delete(position);
    }
    for (const [key, storedAt] of this.objects) {
      if (!doomed(key) || this.nowMs - storedAt < DAY) continue;
      this.objects.delete(key);
    }
    for (const position of this.commits.keys()) {
      if (!this.objects.has(keys.commit(position))) this.commits.delete(position);
    }
    this.check(retention);
  }

  /** Throws unless every kept position can be put together from what is there. */
  check(retention: Retention): void {
    const wanted = new Set([...retention.checkpoints, ...this.pins]);
    for (let position = retention.floor; position <= this.head; position += 1) wanted.add(position);
    for (const position of wanted) {
      const tree = this.fold(position);
      expect(tree).toEqual(this.trees[position] ?? new Map());
      for (const object of tree.values()) {
        if (!this.objects.has(object)) throw new Error(`${position} needs ${object}`);
      }
    }
    if (!this.objects.has(keys.commit(this.head))) throw new Error("the head is gone");
  }

  fold(position: number): Tree {
    const base = Math.max(0, ...[...this.manifests.keys()].filter((at) => at <= position));
    const tree = new Map(this.manifests.get(base)?.tree);
    for (let at = base + 1; at <= position; at += 1) {
      const commit = this.commits.get(at);
      if (!commit) throw new Error(`commit ${at} is gone, ${position} cannot be read`);
      if (commit.object === undefined) tree.delete(commit.path);
      else tree.set(commit.path, commit.object);
    }
    // Repacking moves content of the tree it was made for; what counts here is the content.
    return new Map([...tree].sort(([a], [b]) => a - b));
  }

  #commit(path: number, object: string | undefined): void {
    const position = this.head + 1;
    if (!this.objects.has(keys.commit(position)))
      this.objects.set(keys.commit(position), this.nowMs);
    this.commits.set(position, { path, object });
    const tree = new Map(this.trees.at(-1));
    if (object === undefined) tree.delete(path);
    else tree.set(path, object);
    this.trees.push(new Map([...tree].sort(([a], [b]) => a - b)));
  }

  #checkpoint(repack: boolean): void {
    const position = this.head;
    if (repack) {
      const part = `checkpoints/${String(position).padStart(10, "0")}/part-0001.tar.zst`;
      for (const [path, { content, object }] of this.live) {
        if (!object.startsWith("commits/")) continue;
        this.objects.set(part, this.nowMs);
        this.live.set(path, { content, object: part });
        this.known.set(content, part);
      }
    }
    const tree = new Map(
      [...this.live].map(([path, { object }]): [number, string] => [path, object]),
    );
    this.manifests.set(position, {
      timeMs: this.nowMs,
      tree: new Map([...tree].sort(([a], [b]) => a - b)),
    });
    // From here on the tree stands where the manifest says.
    this.trees[position] = this.manifests.get(position)?.tree ?? new Map();
  }
}

test("nothing that a kept position needs is ever removed", () => {
  fc.assert(
    fc.property(steps, (all) => {
      const model = new Model();
      for (const step of all) model.step(step);
      model.remove();
    }),
    { numRuns: 200 },
  );
});

test("a plan never asks for what an earlier plan gave up", () => {
  const checkpoint = fc.record({
    position: fc.integer({ min: 1, max: 500 }),
    hours: fc.nat(24 * 250),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(checkpoint, { selector: ({ position }) => position, maxLength: 60 }),
      fc.nat(24 * 200),
      (made, laterHours) => {
        const hours = made.map((one) => one.hours).sort((a, b) => b - a);
        const checkpoints = made
          .toSorted((a, b) => a.position - b.position)
          .map(({ position }, at) => ({ position, timeMs: NOW - (hours[at] ?? 0) * HOUR }));
        const input = { head: 600, checkpoints, pins: [] };
        const before = planRetention({ ...input, nowMs: NOW });
        const after = planRetention({ ...input, nowMs: NOW + laterHours * HOUR });
        if (!before || !after) return;
        for (const { position } of checkpoints) {
          if (keepsCheckpoint(after, position))
            expect(keepsCheckpoint(before, position)).toBe(true);
        }
      },
    ),
  );
});
