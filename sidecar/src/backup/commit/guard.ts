import type { Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { FORMAT, keys, type Pin } from "../format/format.ts";
import type { Index } from "../index.ts";
import { putTimeoutMs, type Patience } from "../patience.ts";
import type { Reading } from "../read/reading.ts";
import { MassDeletion } from "./mass-deletion.ts";
import { pathOf } from "./plan.ts";
import type { ReplicatorEvent } from "./replicator-status.ts";

/** So many deletions at once are not believed before the whole tree was looked at. */
const CONFIRM_ABOVE = 50;
/** Source: backup.md, "Never lose the backup". */
const PINNED_MS = 30 * 86_400_000;

export interface GuardOptions {
  readonly store: Store;
  readonly index: Pick<Index, "head" | "totals" | "countBelow" | "get">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly patience: Patience;
  readonly user: string;
  readonly machine: string;
  /** Looks at the whole tree anew; false where it is not known to be whole. */
  readonly confirm: (signal: AbortSignal) => Promise<boolean>;
  readonly onEvent?: (event: ReplicatorEvent) => void;
}

/** Stands between deletions and the history: what goes away on a whole volume is committed, but never without a way back. */
export class Guard {
  readonly #options: GuardOptions;
  readonly #mass = new MassDeletion();

  constructor(options: GuardOptions) {
    this.#options = options;
  }

  /** True where the batch may be committed. Pins the position before a mass deletion first. Rejects with the signal's reason. */
  async allows(batch: readonly Reading[], signal: AbortSignal): Promise<boolean> {
    const { index, clock } = this.#options;
    const gone = batch.filter((reading) => reading.kind === "gone").map(pathOf);
    if (gone.length === 0) return true;
    const count = this.#countOf(gone, batch);
    // What vanishes at the top is rarely a person's wish, and perhaps all there is.
    if (count > CONFIRM_ABOVE || gone.some((path) => !path.includes("/"))) {
      if (!(await this.#options.confirm(signal))) return false;
    }
    const position = index.head()?.position ?? 0;
    const known = index.totals().entries;
    const mass = this.#mass.note({ at: clock.monotonic(), count, known, position });
    if (mass) await this.#pin(mass, signal);
    return true;
  }

  /** How many entries go away for good: what only moved is found again under a new path. */
  #countOf(gone: readonly string[], batch: readonly Reading[]): number {
    const { index } = this.#options;
    let count = 0;
    const folders = new Set<string>();
    for (const path of gone) {
      if (index.get(path)?.entry.type === "directory") folders.add(path);
    }
    for (const path of gone) {
      if (!isBelowAny(path, folders)) count += index.countBelow(path);
    }
    if (count <= CONFIRM_ABOVE) return count;
    for (const reading of batch) {
      if (reading.kind !== "changed") continue;
      const { entry } = reading.item;
      const hadContent = entry.type !== "file" || reading.content === undefined;
      if (hadContent && index.get(entry.path) === undefined) count -= 1;
    }
    return Math.max(0, count);
  }

  async #pin(
    { position, count }: { readonly position: number; readonly count: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { store, clock, patience, user, machine, log, onEvent } = this.#options;
    if (position > 0) {
      const time = Math.floor(clock.now());
      const pin: Pin = {
        format: FORMAT,
        position,
        reason: "mass_delete",
        user,
        machine,
        time,
        until: time + PINNED_MS,
      };
      const body = new TextEncoder().encode(`${JSON.stringify(pin)}\n`);
      const key = keys.pin(`mass-delete-${String(position).padStart(10, "0")}`);
      try {
        await patience.insist((signal) => store.put(key, body, { ifAbsent: true, signal }), {
          signal,
          timeoutMs: putTimeoutMs(body.length),
          missingIsTrouble: true,
        });
      } catch (error) {
        if (!isStoreError(error, "exists", "unsupported")) throw error;
      }
    }
    log.warn({ position, count }, "Many files were deleted at once; the position before is kept");
    onEvent?.({
      type: "mass_delete",
      message: `${count} files were deleted at once; position ${position} is kept for 30 days`,
      details: { position, count },
    });
  }
}

function isBelowAny(path: string, folders: ReadonlySet<string>): boolean {
  for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
    if (folders.has(path.slice(0, at))) return true;
  }
  return false;
}
