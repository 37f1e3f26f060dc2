import type { DirtyItem, Wanted } from "../notice/dirty.ts";

/** What could not be made durable is tried again for so long, and so often at least. */
const PATIENCE_MS = 5_000;
const MIN_TRIES = 3;
/** So many paths are named. */
const NAMED = 3;

/** Something that had changed is not durable; the message says what, and why. */
class NotDurableError extends Error {
  constructor(reasons: readonly string[], options?: ErrorOptions) {
    const more = reasons.length > NAMED ? `; and ${reasons.length - NAMED} more` : "";
    super(reasons.slice(0, NAMED).join("; ") + more, options);
    this.name = "NotDurableError";
  }
}

/** What one who asked for a sync is told. `reason` is why no commits can be made, where that is known. */
export function syncError(
  error: unknown,
  { isLate, reason }: { readonly isLate: boolean; readonly reason: string | undefined },
): unknown {
  const lack = error instanceof NotDurableError ? error.message : undefined;
  if (isLate) {
    const why = reason ?? lack ?? "not everything was sent yet";
    return new Error(`Cannot sync the volume in time: ${why}`, { cause: error });
  }
  return lack === undefined
    ? error
    : new Error(`Cannot sync the volume: ${lack}`, { cause: error });
}

interface Failing {
  readonly since: number;
  tries: number;
  reason: string;
  isGivenUp: boolean;
}

interface Waiter {
  /** What changed later is not waited for. */
  readonly since: number;
  /** By path, what could not be made durable when it was tried last. */
  readonly failing: Map<string, Failing>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Those who wait until everything that had changed by a moment is durable. */
export class Flushes {
  #waiting: Waiter[] = [];

  /** What somebody waits for; undefined where nobody does. */
  get wanted(): Wanted | undefined {
    const waiters = this.#waiting;
    if (waiters.length === 0) return undefined;
    return (path, since) => waiters.some((waiter) => isWanted(waiter, path, since));
  }

  /**
   * Resolves once `advance` finds nothing that had changed by `since`. Rejects with NotDurableError where something was
   * tried for long enough, or was not durable when the signal aborted; else with the signal's reason, or as `fail` says.
   */
  async wait(since: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { since, failing: new Map(), resolve, reject };
    const onAbort = (): void => {
      const cause = signal.reason as Error;
      reject(waiter.failing.size > 0 ? notDurable(waiter, { cause }) : cause);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(waiter);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
    }
  }

  /** These went through, and are durable now but for those that `failed` has a reason for. */
  note(
    items: readonly DirtyItem[],
    { failed, now }: { readonly failed: ReadonlyMap<string, string>; readonly now: number },
  ): void {
    for (const { since, failing } of this.#waiting) {
      for (const item of items) {
        const reason = failed.get(item.path);
        if (reason === undefined) failing.delete(item.path);
        else if (item.since <= since) fail(failing, item.path, { reason, now });
      }
    }
  }

  /** Lets those go for whom nothing is owed any more. */
  advance(owes: (wanted: Wanted) => boolean): void {
    for (const waiter of this.#waiting) {
      if (owes((path, since) => isWanted(waiter, path, since))) continue;
      if (waiter.failing.size === 0) waiter.resolve();
      else waiter.reject(notDurable(waiter));
    }
  }

  fail(error: Error): void {
    for (const waiter of this.#waiting) waiter.reject(error);
  }
}

function isWanted({ since: until, failing }: Waiter, path: string, since: number): boolean {
  return since <= until && failing.get(path)?.isGivenUp !== true;
}

function fail(
  failing: Map<string, Failing>,
  path: string,
  { reason, now }: { readonly reason: string; readonly now: number },
): void {
  const { since, tries } = failing.get(path) ?? { since: now, tries: 0 };
  const isGivenUp = tries + 1 >= MIN_TRIES && now - since >= PATIENCE_MS;
  failing.set(path, { since, tries: tries + 1, reason, isGivenUp });
}

function notDurable({ failing }: Waiter, options?: ErrorOptions): NotDurableError {
  const reasons = [...failing.values()].map(({ reason }) => reason);
  return new NotDurableError(reasons, options);
}
