import type { Clock } from "../../src/platform/clock.ts";
import { collect } from "../../src/store/body.ts";
import { checkKey, checkRange, pageSize } from "../../src/store/key.ts";
import {
  StoreError,
  type Body,
  type GetOptions,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type PutOptions,
  type SignalOption,
  type Store,
} from "../../src/store/store.ts";
import { ManualClock } from "./manual-clock.ts";

/** R2 takes one write per second and key. */
const WRITE_EVERY_MS = 1_000;

interface Kept {
  readonly bytes: Uint8Array;
  readonly modifiedMs: number;
  readonly writtenAt: number;
}

/**
 * A store in memory that is as strict as R2: legal keys only, one write per second and key (a further one is
 * `throttled`, by `clock`; deletions do not count), pages of at most 1,000, never a part of an object.
 * Several machines of a test share one.
 */
export class MemoryStore implements Store {
  readonly name = "memory";
  readonly #clock: Clock;
  readonly #objects = new Map<string, Kept>();

  /** Without a clock time stands still, so that every second write of a key is throttled. */
  constructor(clock: Clock = new ManualClock()) {
    this.#clock = clock;
  }

  /** All keys, in order: for tests to look at. */
  get keys(): readonly string[] {
    return [...this.#objects.keys()].sort();
  }

  /** Changes an object behind everybody's back: bit rot, a meddling operator. */
  tamper(key: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const kept = this.#kept("tamper with", key);
    this.#objects.set(key, { ...kept, bytes: change(kept.bytes.slice()) });
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<void> {
    checkKey(key);
    const { ifAbsent = false, signal } = options;
    signal?.throwIfAborted();
    // Not `slice`: that of a Buffer is a view.
    const bytes = new Uint8Array(await collect(body, { key, signal }));
    // As on a network, nobody is first just because they asked first.
    await Promise.resolve();
    signal?.throwIfAborted();
    const kept = this.#objects.get(key);
    if (kept && ifAbsent) {
      throw new StoreError("exists", `Cannot put "${key}": it exists already`);
    }
    const writtenAt = this.#clock.monotonic();
    if (kept && writtenAt - kept.writtenAt < WRITE_EVERY_MS) {
      throw new StoreError("throttled", `Cannot put "${key}": written less than a second ago`);
    }
    this.#objects.set(key, { bytes, modifiedMs: this.#clock.now(), writtenAt });
  }

  async get(key: string, options: GetOptions = {}): Promise<Uint8Array> {
    const { range, signal } = options;
    if (range) checkRange(range);
    await Promise.resolve();
    signal?.throwIfAborted();
    return this.#kept("get", key).bytes.slice(range?.start, range?.end);
  }

  async stream(key: string, options: GetOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const bytes = await this.get(key, options);
    let offset = 0;
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        options.signal?.throwIfAborted();
        if (offset < bytes.byteLength) controller.enqueue(bytes.slice(offset, offset + 65_536));
        offset += 65_536;
        if (offset >= bytes.byteLength) controller.close();
      },
    });
  }

  async head(key: string, options: SignalOption = {}): Promise<ObjectInfo | undefined> {
    await Promise.resolve();
    options.signal?.throwIfAborted();
    const kept = this.#objects.get(key);
    return kept && infoOf(key, kept);
  }

  async list(prefix: string, options: ListOptions = {}): Promise<ListPage> {
    const { after = "", signal } = options;
    await Promise.resolve();
    signal?.throwIfAborted();
    const limit = pageSize(options.limit);
    const found = [...this.#objects]
      .filter(([key]) => key.startsWith(prefix) && key > after)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      objects: found.slice(0, limit).map(([key, kept]) => infoOf(key, kept)),
      more: found.length > limit,
      nowMs: this.#clock.now(),
    };
  }

  async delete(keys: readonly string[], options: SignalOption = {}): Promise<void> {
    for (const key of keys) checkKey(key);
    await Promise.resolve();
    options.signal?.throwIfAborted();
    for (const key of keys) this.#objects.delete(key);
  }

  #kept(verb: string, key: string): Kept {
    const kept = this.#objects.get(key);
    if (!kept) throw new StoreError("missing", `Cannot ${verb} "${key}": there is no such object`);
    return kept;
  }
}

function infoOf(key: string, kept: Kept): ObjectInfo {
  return { key, sizeBytes: kept.bytes.byteLength, modifiedMs: kept.modifiedMs };
}
