import { keys, positionOf } from "../format/format.ts";
import type { StoreReads } from "../history/history.ts";
import { eachObject } from "./listing.ts";
import { gatherReferences, type KnownReferences, type References } from "./references.ts";
import { isDoomed, planRetention, YOUNG_MS, type Retention } from "./retention.ts";
import { survey, type Survey } from "./survey.ts";

/** In the order in which they go: what names others before what is named. */
export const KINDS = ["manifests", "parts", "commits", "blobs"] as const;
type Kind = (typeof KINDS)[number];

const EXAMPLES = 20;
/** Keys that are held at a time; what is beyond is for the next night. */
const MAX_KEYS = 50_000;

interface Amount {
  readonly objects: number;
  readonly bytes: number;
}

/** What would go from a store, and what is wrong with it as far as that showed. */
export interface RemovalReport extends Amount {
  /** The position from which on everything stays; undefined where nothing may go yet. */
  readonly keptFrom: number | undefined;
  readonly head: number;
  readonly kinds: Readonly<Record<Kind, Amount>>;
  /** Keys, up to 20. */
  readonly examples: readonly string[];
  readonly expiredPins: readonly string[];
  /** Objects that something kept points into and that are not there. */
  readonly missing: { readonly count: number; readonly examples: readonly string[] };
  /** Positions of checkpoints that cannot be read. */
  readonly unreadable: readonly number[];
}

export interface Doomed {
  readonly report: RemovalReport;
  /** The first of them, by kind. */
  readonly keys: Readonly<Record<Kind, readonly string[]>>;
  /** True for every object that nothing kept needs, whatever its age. */
  readonly isDoomed: (key: string) => boolean;
}

export interface FindOptions {
  /** The position that is known to be there; found by listing where it is not given. */
  readonly head?: number | undefined;
  readonly index?: KnownReferences | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told how many objects were read or listed so far. */
  readonly onProgress?: ((objects: number) => void) | undefined;
}

/**
 * Finds what may go, by reading alone: from anywhere that has the store's credentials, and where there is an index of the
 * machine that writes, with far fewer requests. Throws where it cannot be told for sure.
 */
export async function findDoomed(store: StoreReads, options: FindOptions = {}): Promise<Doomed> {
  const { head, index, signal, onProgress } = options;
  let done = 0;
  const advance = (): void => {
    done += 1;
    onProgress?.(done);
  };
  const found = await survey(store, { head, signal });
  const unreadable = new Set<number>();
  for (;;) {
    const checkpoints = found.checkpoints.filter(({ position }) => !unreadable.has(position));
    const retention = planRetention({ ...found, checkpoints });
    if (!retention) return nothing(found, [...unreadable]);
    const { branches } = found;
    const gather = { retention, branches, index, signal, onRead: advance };
    const references = await gatherReferences(store, gather);
    if (references.unreadable.length === 0) {
      const search = new Search({ found, retention, references, unreadable });
      await search.run(store, { signal, onListed: advance });
      return search.result();
    }
    for (const position of references.unreadable) unreadable.add(position);
  }
}

interface Basis {
  readonly found: Survey;
  readonly retention: Retention;
  readonly references: References;
  readonly unreadable: ReadonlySet<number>;
}

class Search {
  readonly #basis: Basis;
  readonly #doomed: Record<Kind, string[]> = { manifests: [], parts: [], commits: [], blobs: [] };
  readonly #amounts: Record<Kind, { objects: number; bytes: number }> = emptyAmounts();
  /** Needed and not seen yet. */
  readonly #missing: Set<string>;

  constructor(basis: Basis) {
    this.#basis = basis;
    const { references, retention } = basis;
    this.#missing = new Set(references.needed);
    for (let position = retention.floor + 1; position <= retention.head; position += 1)
      this.#missing.add(keys.commit(position));
  }

  async run(
    store: StoreReads,
    {
      signal,
      onListed,
    }: { readonly signal: AbortSignal | undefined; readonly onListed: () => void },
  ): Promise<void> {
    for (const prefix of [keys.checkpoints, keys.commits, keys.blobs]) {
      for await (const { key, sizeBytes, ageMs } of eachObject(store, prefix, { signal })) {
        onListed();
        this.#missing.delete(key);
        if (ageMs < YOUNG_MS || !this.isDoomed(key)) continue;
        const kind = kindOf(key);
        this.#amounts[kind].objects += 1;
        this.#amounts[kind].bytes += sizeBytes;
        if (this.#doomed[kind].length < MAX_KEYS) this.#doomed[kind].push(key);
      }
    }
  }

  isDoomed(key: string): boolean {
    const { retention, references, unreadable } = this.#basis;
    const position = positionOf(key);
    // What is damaged is left for somebody to look at.
    if (position !== undefined && unreadable.has(position) && kindOf(key) === "manifests")
      return false;
    const { needed, ofBranches } = references;
    const has = (other: string): boolean => needed.has(other) || ofBranches.has(other);
    return isDoomed(key, { retention, references: { has } });
  }

  result(): Doomed {
    const { found, retention, unreadable } = this.#basis;
    const all = KINDS.flatMap((kind) => this.#doomed[kind].slice(0, EXAMPLES));
    const report = {
      ...sum(this.#amounts),
      keptFrom: retention.floor,
      head: retention.head,
      kinds: this.#amounts,
      examples: all.slice(0, EXAMPLES),
      expiredPins: found.expiredPins,
      missing: { count: this.#missing.size, examples: firstOf(this.#missing) },
      unreadable: [...unreadable],
    };
    return { report, keys: this.#doomed, isDoomed: (key) => this.isDoomed(key) };
  }
}

function nothing({ head, expiredPins }: Survey, unreadable: readonly number[]): Doomed {
  const report = {
    objects: 0,
    bytes: 0,
    keptFrom: undefined,
    head,
    kinds: emptyAmounts(),
    examples: [],
    expiredPins,
    missing: { count: 0, examples: [] },
    unreadable,
  };
  const keys = { manifests: [], parts: [], commits: [], blobs: [] };
  return { report, keys, isDoomed: () => false };
}

function kindOf(key: string): Kind {
  if (key.startsWith(keys.commits)) return "commits";
  if (key.startsWith(keys.blobs)) return "blobs";
  return positionOf(key) === undefined ? "parts" : "manifests";
}

function emptyAmounts(): Record<Kind, { objects: number; bytes: number }> {
  const none = (): { objects: number; bytes: number } => ({ objects: 0, bytes: 0 });
  return { manifests: none(), parts: none(), commits: none(), blobs: none() };
}

function sum(amounts: Readonly<Record<Kind, Amount>>): Amount {
  const all = Object.values(amounts);
  return {
    objects: all.reduce((total, { objects }) => total + objects, 0),
    bytes: all.reduce((total, { bytes }) => total + bytes, 0),
  };
}

function firstOf(keys: ReadonlySet<string>): string[] {
  return [...keys.values().take(EXAMPLES)];
}
