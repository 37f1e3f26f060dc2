import type { Clock } from "../platform/clock.ts";
import type { MachineState, Reason } from "./report.ts";

/** A cause for not being ready, as a part states it; since when is known here. */
export interface Cause {
  readonly part: string;
  /** One word for programs, such as "unreachable". */
  readonly kind: string;
  /** What was found and what to do. */
  readonly message: string;
  /** Something to know of that leaves the machine ready. */
  readonly severity?: "notice" | undefined;
}

/** What decides the state of the whole machine. */
export interface StateInputs {
  readonly stopping: boolean;
  readonly restoring: boolean;
  /** The boot has come to its end, well or not. */
  readonly booted: boolean;
  readonly causes: readonly Cause[];
}

/** What is another than before. */
export interface StateChange {
  /** The state before; undefined where it is still the same. */
  readonly before: MachineState | undefined;
  readonly appeared: readonly Reason[];
  readonly gone: readonly Reason[];
}

/** The machine's state from what its parts say. A machine that is still booting is not degraded for what is yet to come. */
export function machineState(inputs: StateInputs): MachineState {
  if (inputs.stopping) return "stopping";
  if (inputs.restoring) return "restoring";
  if (!inputs.booted) return "booting";
  return inputs.causes.some((cause) => cause.severity !== "notice") ? "degraded" : "ready";
}

/** Remembers since when the machine is in its state and each cause holds, and says what has changed. */
export class StateHistory {
  readonly #clock: Clock;
  #state: MachineState = "booting";
  #since: number;
  #reasons: readonly Reason[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.now();
  }

  get state(): MachineState {
    return this.#state;
  }

  /** ISO 8601. */
  get since(): string {
    return new Date(this.#since).toISOString();
  }

  get reasons(): readonly Reason[] {
    return this.#reasons;
  }

  /** Takes in what holds now. A cause stays the same one while its part and kind do, whatever its message says. */
  update(inputs: StateInputs): StateChange {
    const now = new Date(this.#clock.now()).toISOString();
    const known = this.#reasons;
    this.#reasons = inputs.causes.map((cause) => ({
      ...cause,
      since: known.find((reason) => isSame(reason, cause))?.since ?? now,
    }));
    const state = machineState(inputs);
    const before = state === this.#state ? undefined : this.#state;
    if (before !== undefined) {
      this.#state = state;
      this.#since = this.#clock.now();
    }
    return {
      before,
      appeared: this.#reasons.filter((reason) => !known.some((other) => isSame(reason, other))),
      gone: known.filter((reason) => !this.#reasons.some((other) => isSame(reason, other))),
    };
  }
}

function isSame(one: Cause, other: Cause): boolean {
  return one.part === other.part && one.kind === other.kind;
}
