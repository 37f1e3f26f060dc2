import { isStoreError } from "../../store/store.ts";
import { parseVersioned } from "../format/codec.ts";
import { keys, pinSchema, positionOf, type Pin } from "../format/format.ts";
import { readHead, type StoreReads } from "../history/history.ts";
import { eachObject, type StoredObject } from "./listing.ts";
import { YOUNG_MS } from "./retention.ts";

/** A pin of this name keeps the base of a branch, for as long as there is one. */
const BRANCH_PIN = "branch-";

/** What removal must know of a pin. */
const keptPin = pinSchema.pick({ position: true, until: true });

export interface Branch {
  /** `branches/{name}/` */
  readonly prefix: string;
  /** Positions of its commits, ascending. */
  readonly commits: readonly number[];
}

/** What stands in a store, by its listings and pins alone. */
export interface Survey {
  /** The server's clock. */
  readonly nowMs: number;
  readonly head: number;
  readonly checkpoints: readonly { readonly position: number; readonly timeMs: number }[];
  /** Positions that pins in force keep, and the bases of branches. */
  readonly pins: readonly number[];
  /** Keys of pins that keep nothing any more. */
  readonly expiredPins: readonly string[];
  readonly branches: readonly Branch[];
}

export interface SurveyOptions {
  /** The position that is known to be there; found by listing where it is not given. */
  readonly head?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Looks at all that decides what stays. Throws where a pin cannot be understood: what it keeps is not known then; and the
 * store's own errors.
 */
export async function survey(store: StoreReads, options: SurveyOptions = {}): Promise<Survey> {
  const { signal } = options;
  const head = options.head ?? (await readHead(store, { signal }));
  const { nowMs } = await store.list(keys.pins, { limit: 1, signal });
  const checkpoints: { position: number; timeMs: number }[] = [];
  for await (const { key, modifiedMs } of eachObject(store, keys.checkpoints, { signal })) {
    const position = positionOf(key);
    if (position !== undefined) checkpoints.push({ position, timeMs: modifiedMs });
  }
  const branches = await branchesOf(store, signal);
  const names = new Set(branches.map(({ prefix }) => prefix.slice(keys.branches.length, -1)));
  const pins = branches.flatMap(({ commits }) => (commits[0] === undefined ? [] : commits[0] - 1));
  const expiredPins: string[] = [];
  for await (const object of eachObject(store, keys.pins, { signal })) {
    const pin = await readPin(store, object, signal);
    if (!pin) continue;
    const { position, until = Infinity } = pin;
    const name = object.key.slice(keys.pins.length);
    // Younger ones may be waiting for the first commit of their branch.
    const isIdle =
      name.startsWith(BRANCH_PIN) &&
      !names.has(name.slice(BRANCH_PIN.length)) &&
      object.ageMs > YOUNG_MS;
    if (until <= nowMs || isIdle) expiredPins.push(object.key);
    else pins.push(position);
  }
  return { nowMs, head, checkpoints, pins, expiredPins, branches };
}

async function branchesOf(store: StoreReads, signal: AbortSignal | undefined): Promise<Branch[]> {
  const branches = new Map<string, number[]>();
  for await (const { key } of eachObject(store, keys.branches, { signal })) {
    const [, prefix, rest] = /^(branches\/[^/]+\/)(.*)$/.exec(key) ?? [];
    if (prefix === undefined || rest === undefined) continue;
    const commits = branches.get(prefix) ?? [];
    branches.set(prefix, commits);
    const position = rest.startsWith(keys.commits) ? positionOf(rest) : undefined;
    if (position !== undefined) commits.push(position);
  }
  return [...branches].map(([prefix, commits]) => ({ prefix, commits }));
}

/** Undefined where it was taken away meanwhile. */
async function readPin(
  store: StoreReads,
  { key }: StoredObject,
  signal: AbortSignal | undefined,
): Promise<Pick<Pin, "position" | "until"> | undefined> {
  try {
    return keptPin.parse(parseVersioned(await store.get(key, { signal }), key));
  } catch (error) {
    if (isStoreError(error, "missing")) return undefined;
    if (isStoreError(error) || signal?.aborted) throw error;
    throw new Error(`Cannot tell what "${key}" keeps: it is no pin; delete it or put it right`, {
      cause: error,
    });
  }
}
