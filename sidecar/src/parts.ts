import type { Logger } from "./platform/log.ts";

/** One long-lived piece of the machine. */
export interface Part {
  readonly name: string;
  /**
   * Resolves when the next part may start. A part that must hold the others back (a restore, a volume of somebody else)
   * simply does not resolve. Throws where it cannot start; rejects when the signal aborts.
   */
  start(signal: AbortSignal): Promise<void>;
  /** Resolves when it is truly finished, at the latest soon after the signal aborts. Called once, also while `start` is under way. */
  stop(signal: AbortSignal): Promise<void>;
}

/** Parts that stop together, and how long they have. */
export interface StopStage {
  readonly parts: readonly string[];
  readonly budgetMs: number;
}

/** Starts parts in order until all run, one fails or the signal aborts. Remembers which were begun: those are to be stopped. */
export class Parts {
  readonly #parts: readonly Part[];
  readonly #log: Logger;
  readonly #begun: Part[] = [];

  constructor(parts: readonly Part[], log: Logger) {
    this.#parts = parts;
    this.#log = log;
  }

  /** Resolves when every part has started. Throws the error of the part that failed; those before it go on. */
  async start(signal: AbortSignal): Promise<void> {
    for (const part of this.#parts) {
      signal.throwIfAborted();
      this.#begun.push(part);
      await part.start(signal);
      this.#log.debug({ part: part.name }, "Part started");
    }
  }

  /** Stops what was begun, stage by stage. A part that fails to stop or overruns its stage never keeps the next ones waiting. */
  async stop(stages: readonly StopStage[], hurry: AbortSignal): Promise<void> {
    for (const stage of stages) {
      const limit = AbortSignal.any([AbortSignal.timeout(stage.budgetMs), hurry]);
      const parts = this.#begun.filter((part) => stage.parts.includes(part.name));
      await Promise.all(parts.map((part) => this.#stopOne(part, limit)));
    }
  }

  async #stopOne(part: Part, limit: AbortSignal): Promise<void> {
    try {
      await Promise.race([part.stop(limit), overrun(limit)]);
    } catch (error) {
      this.#log.error({ part: part.name, error }, "Cannot stop a part in order");
    }
  }
}

/** After its limit a part gets this long to leave its state consistent. */
const OVERRUN_MS = 1_000;

function overrun(limit: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const late = (): void => {
      AbortSignal.timeout(OVERRUN_MS).addEventListener("abort", () =>
        reject(new Error("It did not end within its time")),
      );
    };
    if (limit.aborted) late();
    else limit.addEventListener("abort", late, { once: true });
  });
}
