import { positionOf } from "../format/format.ts";

/** Source: backup.md, "Never lose the backup". */
const DAY_MS = 86_400_000;
const EVERYTHING_MS = 7 * DAY_MS;
const DAILY_MS = 30 * DAY_MS;
const WEEKLY_MS = 26 * 7 * DAY_MS;
/** Nothing younger is removed, whatever the plan says: it may be about to be named by a commit. */
export const YOUNG_MS = DAY_MS;

export interface RetentionInput {
  /** The server's clock, as are all times here. */
  readonly nowMs: number;
  /** The position of the last commit. */
  readonly head: number;
  /** The checkpoints that can be read, in any order. `timeMs` is when the manifest was stored. */
  readonly checkpoints: readonly { readonly position: number; readonly timeMs: number }[];
  /** Positions that pins and branches keep. */
  readonly pins: readonly number[];
}

/** What of a history stays. */
export interface Retention {
  readonly head: number;
  /** A checkpoint that is a week old: it stays, and so do all commits and checkpoints after it. */
  readonly floor: number;
  /** Checkpoints before the floor that stay. */
  readonly checkpoints: ReadonlySet<number>;
  /** Commits up to the floor that stay: those after `after` up to `to`. */
  readonly commits: readonly { readonly after: number; readonly to: number }[];
}

/**
 * Decides what of a history stays: everything of the last week, a checkpoint a day for 30 days and one a week (ISO, UTC)
 * for 26 weeks, every pinned position, and the head. Undefined where nothing may go, because no checkpoint is a week old.
 * As long as nobody pins an old position, a later plan never asks for what an earlier one gave up.
 */
export function planRetention(input: RetentionInput): Retention | undefined {
  const { nowMs, head, pins } = input;
  const checkpoints = input.checkpoints
    .filter(({ position }) => position <= head)
    .toSorted((a, b) => b.position - a.position);
  const floor = checkpoints.find(({ timeMs }) => timeMs <= nowMs - EVERYTHING_MS)?.position;
  if (floor === undefined) return undefined;
  const kept = new Set<number>();
  const days = new Set<number>();
  const weeks = new Set<number>();
  // Newest first: the first one of a day or week is the one that stays, now and at every later time.
  for (const { position, timeMs } of checkpoints) {
    const age = nowMs - timeMs;
    const isFirst = [isNew(days, dayOf(timeMs)), isNew(weeks, weekOf(timeMs))];
    const stays = (age <= DAILY_MS && isFirst[0]) || (age <= WEEKLY_MS && isFirst[1]);
    if (position < floor && stays) kept.add(position);
  }
  const commits: { after: number; to: number }[] = [];
  for (const pin of pins) {
    if (pin >= floor || pin < 1) continue;
    const base = checkpoints.find(({ position }) => position <= pin)?.position;
    if (base !== undefined) kept.add(base);
    if (base !== pin) commits.push({ after: base ?? 0, to: pin });
  }
  return { head, floor, checkpoints: kept, commits: merged(commits) };
}

/** True if the plan keeps the commit at `position`, whether or not something points into it. */
export function keepsCommit({ floor, head, commits }: Retention, position: number): boolean {
  if (position > floor || position >= head) return true;
  return commits.some(({ after, to }) => position > after && position <= to);
}

/** True if the plan keeps the checkpoint at `position`. */
export function keepsCheckpoint({ floor, checkpoints }: Retention, position: number): boolean {
  return position >= floor || checkpoints.has(position);
}

/**
 * True if the object `key` may go, once it is old enough. `references` are all objects that what stays up to the floor, or
 * comes after it, points into. What is no object of a history is nobody's to remove.
 */
export function isDoomed(
  key: string,
  kept: { readonly retention: Retention; readonly references: { has(key: string): boolean } },
): boolean {
  const { retention, references } = kept;
  const position = positionOf(key);
  if (position !== undefined) {
    if (key.startsWith("checkpoints/")) return !keepsCheckpoint(retention, position);
    return !keepsCommit(retention, position) && !references.has(key);
  }
  const checkpoint = /^checkpoints\/(\d{10})\/part-\d{4,}\.tar\.zst$/.exec(key)?.[1];
  // Checkpoints from the floor on are not read: their parts stay like themselves.
  if (checkpoint !== undefined) return Number(checkpoint) < retention.floor && !references.has(key);
  return /^blobs\/[0-9a-f]{64}$/.test(key) && !references.has(key);
}

function isNew(seen: Set<number>, value: number): boolean {
  if (seen.has(value)) return false;
  seen.add(value);
  return true;
}

function dayOf(timeMs: number): number {
  return Math.floor(timeMs / DAY_MS);
}

/** The epoch began on a Thursday; ISO weeks begin on Mondays. */
function weekOf(timeMs: number): number {
  return Math.floor((dayOf(timeMs) + 3) / 7);
}

/** The same ranges, those that overlap as one, in order. */
function merged(
  ranges: readonly { readonly after: number; readonly to: number }[],
): { readonly after: number; readonly to: number }[] {
  const all: { after: number; to: number }[] = [];
  for (const range of ranges.toSorted((a, b) => a.after - b.after)) {
    const last = all.at(-1);
    if (last && range.after <= last.to) last.to = Math.max(last.to, range.to);
    else all.push({ ...range });
  }
  return all;
}
