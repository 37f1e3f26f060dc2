import type { Clock } from "../../platform/clock.ts";
import { Hints, type Hint } from "./hints.ts";

/** Source: backup.md, "Settle". */
const QUIET_MS = 300;
/** Paths that a scan found and that wait to be read; at about 200 bytes each. */
const MAX_FOUND = 65_536;
const MAX_RESTING = 10_000;

/** A path to be read, or a folder to be scanned ("" is the whole volume). */
export interface DirtyItem {
  readonly path: string;
  readonly kind: "path" | "tree";
  /** When it first changed without having become durable since, by the monotonic clock in milliseconds. */
  readonly since: number;
}

/** Says of a path, and since when it is dirty, whether it is asked for. */
export type Wanted = (path: string, since: number) => boolean;

export interface DirtySetOptions {
  readonly clock: Clock;
  /** Called when something has become due, once until the next `take`. */
  readonly onDue?: () => void;
  readonly maxFound?: number;
}

/**
 * What changed and is not durable yet. Hints of the watcher wait until they are quiet and are merged into whole folders
 * when there are many; what a scan found is exact and due at once. Databases come first, then the agent's own files.
 */
export class DirtySet {
  readonly #clock: Clock;
  readonly #onDue: (() => void) | undefined;
  readonly #maxFound: number;
  readonly #hints: Hints;
  /** Since when, by path, one map for each rank. */
  readonly #found: readonly Map<string, number>[] = [new Map(), new Map(), new Map()];
  readonly #taken = new Set<DirtyItem>();
  readonly #resting = new Map<string, number>();
  /** Since when more was found than could be kept. */
  #overflow: number | undefined;
  #timer: { readonly at: number; readonly cancel: () => void } | undefined;

  constructor(options: DirtySetOptions) {
    this.#clock = options.clock;
    this.#hints = new Hints(options.clock);
    this.#onDue = options.onDue;
    this.#maxFound = options.maxFound ?? MAX_FOUND;
  }

  /** Paths and folders that wait, not counting what was taken. */
  get size(): number {
    const found = this.#found.reduce((sum, rank) => sum + rank.size, 0);
    return this.#hints.size + found + (this.#overflow === undefined ? 0 : 1);
  }

  /** Age of the oldest change that is not durable, taken or not; 0 if there is none. */
  get lagMs(): number {
    let oldest = this.#overflow ?? Infinity;
    for (const { since } of this.#hints.values()) oldest = Math.min(oldest, since);
    for (const rank of this.#found) {
      for (const since of rank.values()) oldest = Math.min(oldest, since);
    }
    for (const { since } of this.#taken) oldest = Math.min(oldest, since);
    return oldest === Infinity ? 0 : Math.round(this.#clock.monotonic() - oldest);
  }

  /** The watcher says that something happened at `path`, or anywhere below it. */
  hint(path: string, kind: "path" | "tree" = "path"): void {
    const now = this.#clock.monotonic();
    this.#hints.add({ path, kind, since: this.#forgetFound(path) ?? now }, now + QUIET_MS);
    this.#arm();
  }

  /** A scan found that these paths are not as the index has them. */
  found(paths: Iterable<string>): void {
    const now = this.#clock.monotonic();
    for (const path of paths) this.#find(path, now);
    this.#arm();
  }

  /**
   * What is due, at most `limit`, the most precious first; with it what `also` asks for, though it is not quiet or rests.
   * It counts as not durable until `settled` or `putBack`.
   */
  take(
    limit: number,
    { also = nothing }: { readonly also?: Wanted | undefined } = {},
  ): DirtyItem[] {
    const now = this.#clock.monotonic();
    const items: DirtyItem[] = [];
    const due = [...this.#hints.values()].filter(
      (hint) => this.#dueAt(hint) <= now || also(hint.path, hint.since),
    );
    for (const [rank, found] of this.#found.entries()) {
      for (const hint of due) {
        if (items.length >= limit) break;
        if (rankOf(hint.path) !== rank) continue;
        this.#hints.drop(hint.path);
        items.push({ path: hint.path, kind: hint.kind, since: hint.since });
      }
      for (const [path, since] of found) {
        if (items.length >= limit) break;
        if (this.#restOf(path) > now && !also(path, since)) continue;
        found.delete(path);
        items.push({ path, kind: "path", since });
      }
    }
    // Everything else must be out of the way first, or the scan would find it all again.
    const isLast = this.size === 1 || also("", this.#overflow ?? Infinity);
    if (items.length === 0 && this.#overflow !== undefined && isLast && limit > 0) {
      items.push({ path: "", kind: "tree", since: this.#overflow });
      this.#overflow = undefined;
    }
    for (const item of items) this.#taken.add(item);
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#arm();
    return items;
  }

  /** True if anything that was not taken is wanted. */
  waitsFor(wanted: Wanted): boolean {
    for (const { path, since } of this.#hints.values()) if (wanted(path, since)) return true;
    for (const rank of this.#found) {
      for (const [path, since] of rank) if (wanted(path, since)) return true;
    }
    return this.#overflow !== undefined && wanted("", this.#overflow);
  }

  /** True if anything that is not durable is wanted, taken or not. */
  owes(wanted: Wanted): boolean {
    for (const { path, since } of this.#taken) if (wanted(path, since)) return true;
    return this.waitsFor(wanted);
  }

  /** What was taken is durable now, or needs no more: gone, unchanged, scanned, or skipped. */
  settled(items: Iterable<DirtyItem>): void {
    for (const item of items) this.#taken.delete(item);
  }

  /** What was taken could not be made durable: it is due again after `delayMs`, as old as it was. */
  putBack(items: Iterable<DirtyItem>, delayMs = 0): void {
    const now = this.#clock.monotonic();
    for (const item of items) {
      this.#taken.delete(item);
      if (item.kind === "tree" || delayMs > 0) this.#hints.add(item, now + delayMs);
      else this.#find(item.path, item.since);
    }
    this.#arm();
  }

  /** Keeps `path` from being due for `ms`: a big busy database must not take the machine. It is never forgotten. */
  rest(path: string, ms: number): void {
    const now = this.#clock.monotonic();
    if (this.#resting.size >= MAX_RESTING) {
      for (const [other, until] of this.#resting) if (until <= now) this.#resting.delete(other);
    }
    if (this.#resting.size < MAX_RESTING) this.#resting.set(path, now + ms);
  }

  /** Milliseconds until something is due, 0 if something is; undefined if nothing waits. */
  nextDueMs(): number | undefined {
    const now = this.#clock.monotonic();
    let next = Infinity;
    for (const hint of this.#hints.values()) next = Math.min(next, this.#dueAt(hint));
    for (const rank of this.#found) {
      for (const path of rank.keys()) {
        next = Math.min(next, this.#restOf(path));
        if (next <= now) return 0;
      }
    }
    if (this.#overflow !== undefined && this.size === 1) return 0;
    return next === Infinity ? undefined : Math.max(0, next - now);
  }

  /** Forgets everything and calls nobody any more. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#hints.clear();
    for (const rank of this.#found) rank.clear();
    this.#taken.clear();
    this.#overflow = undefined;
  }

  #find(path: string, since: number): void {
    const hint = this.#hints.get(path);
    if (hint) {
      hint.since = Math.min(hint.since, since);
      return;
    }
    const rank = this.#found[rankOf(path)];
    const known = rank?.get(path);
    if (known === undefined && this.size >= this.#maxFound) {
      this.#overflow = Math.min(this.#overflow ?? Infinity, since);
    } else {
      rank?.set(path, Math.min(known ?? Infinity, since));
    }
  }

  /** Since when `path` was found, which is then forgotten: it is being written, and must be quiet again first. */
  #forgetFound(path: string): number | undefined {
    const rank = this.#found[rankOf(path)];
    const since = rank?.get(path);
    if (since !== undefined) rank?.delete(path);
    return since;
  }

  #dueAt(hint: Hint): number {
    return Math.max(hint.due, this.#restOf(hint.path));
  }

  #restOf(path: string): number {
    return this.#resting.get(path) ?? 0;
  }

  #arm(): void {
    if (!this.#onDue) return;
    const next = this.nextDueMs();
    if (next === undefined) return;
    const at = this.#clock.monotonic() + next;
    // A timer that is early looks again; only one that would be late is replaced.
    if (this.#timer && this.#timer.at <= at) return;
    this.#timer?.cancel();
    const cancel = this.#clock.after(next, () => this.#wake());
    this.#timer = { at, cancel };
  }

  #wake(): void {
    if (this.nextDueMs() === 0) {
      // Kept as a timer long gone, so that nobody is called again before the next `take`.
      this.#timer = { at: -Infinity, cancel: () => undefined };
      this.#onDue?.();
      return;
    }
    this.#timer = undefined;
    this.#arm();
  }
}

function nothing(): boolean {
  return false;
}

/** 0: databases, which the gateway lives in. 1: the agent's own files. 2: the rest. */
function rankOf(path: string): 0 | 1 | 2 {
  if (/\.(?:sqlite3?|db)$/.test(path) || path.startsWith("openclaw/agents/")) return 0;
  return path.startsWith("workspace/") ? 1 : 2;
}
