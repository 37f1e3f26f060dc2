import type { Clock } from "../platform/clock.ts";
import type { ServiceState } from "./spec.ts";

/** Where a service stands: its state, since when and why, and the one timer that the state may have. */
export class Standing {
  readonly #clock: Clock;
  readonly #onChange: () => void;
  #state: ServiceState = "initial";
  #since: number;
  #reason: string | undefined;
  #ready = false;
  #visit = {};
  #cancelTimer: (() => void) | undefined;

  /** `onChange` follows each change of state or readiness. */
  constructor(clock: Clock, onChange: () => void) {
    this.#clock = clock;
    this.#onChange = onChange;
    this.#since = clock.now();
  }

  get state(): ServiceState {
    return this.#state;
  }

  /** Wall time in milliseconds since when it is in this state. */
  get since(): number {
    return this.#since;
  }

  get ready(): boolean {
    return this.#ready;
  }

  /** Why it stands where it does; why it is not ready. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Another object for each visit to a state: what began in an earlier visit is too late. */
  get visit(): object {
    return this.#visit;
  }

  enter(state: ServiceState, reason: string | undefined): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#visit = {};
    // Only on the way from starting to running does an admission stay what it is.
    if (state !== "running") this.#ready = false;
    this.#state = state;
    this.#since = this.#clock.now();
    this.#reason = reason;
    this.#onChange();
  }

  setReady(ready: boolean, reason: string | undefined): void {
    const changed = ready !== this.#ready;
    this.#ready = ready;
    this.#reason = reason;
    if (changed) this.#onChange();
  }

  explain(reason: string): void {
    this.#reason = reason;
  }

  /** Calls `event` after `ms`, unless another state is entered or another timer set before. */
  arm(ms: number, event: () => void): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#clock.after(ms, event);
  }
}
