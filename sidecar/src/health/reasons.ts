import type { Clock } from "../platform/clock.ts";
import type { MachineState, Reason } from "./report.ts";

/** A cause for not being ready, as a part states it; since when is known here. */
export interface Cause {
  readonly part: string;
  /** One word for programs, such as "unreachable". */
  readonly kind: string;
  readonly message: string;
}

/** What decides the state of the whole machine. */
export interface StateInputs {
  readonly stopping: boolean;
  readonly restoring: boolean;
  /** The boot has come to its end, well or not. */
  readonly booted: boolean;
  readonly causes: readonly Cause[];
}

/** The machine's state from what its parts say. A machine that is still booting is not degraded for what is yet to come. */
export function machineState(inputs: StateInputs): MachineState {
  if (inputs.stopping) return "stopping";
  if (inputs.restoring) return "restoring";
  if (!inputs.booted) return "booting";
  return inputs.causes.length > 0 ? "degraded" : "ready";
}

/** Remembers since when the machine is in its state and each cause holds, and says when the state changed. */
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

  /** Takes in what holds now. Returns the state before, if it is another one now. */
  update(inputs: StateInputs): MachineState | undefined {
    const now = new Date(this.#clock.now()).toISOString();
    this.#reasons = inputs.causes.map((cause) => {
      const known = this.#reasons.find(
        (reason) => reason.part === cause.part && reason.kind === cause.kind,
      );
      return { ...cause, since: known?.since ?? now };
    });
    const state = machineState(inputs);
    if (state === this.#state) return undefined;
    const before = this.#state;
    this.#state = state;
    this.#since = this.#clock.now();
    return before;
  }
}
