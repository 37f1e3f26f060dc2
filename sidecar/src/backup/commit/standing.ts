import type { Logger } from "../../platform/log.ts";
import type { StoreError } from "../../store/store.ts";
import { isOutOfDescriptors } from "../../volume/volume-error.ts";
import { isDamagedIndex } from "../index-schema.ts";
import type { Reach } from "../patience.ts";
import type { CommitResult } from "./committer.ts";
import type { BackupStatus, ReplicatorEvent } from "./replicator-status.ts";
import type { Halt } from "./scans.ts";

export interface StandingOptions {
  readonly log: Logger;
  readonly store: { readonly name: string };
  readonly onEvent?: (event: ReplicatorEvent) => void;
  /** See ReplicatorOptions. */
  readonly refuse?: () => Halt | undefined;
  /** Called when commits may no longer be made, with why; and when they may again. */
  readonly onChange: (obstacle: Error | undefined) => void;
}

const REACH: Readonly<Record<Reach, string>> = {
  ok: "The store answers again",
  unreachable: "The store cannot be reached; changes are kept and sent later",
  denied: "The store refuses the credentials; changes are kept and sent once there are new ones",
};

const NO_DESCRIPTORS =
  "Cannot read the volume: no file descriptors are left; it is tried again, and restarting the machine frees them";

/** Whether commits can be made, and why not. Every change is one line in the log and one event. */
export class Standing {
  readonly #options: StandingOptions;
  #final: (Halt & { readonly kind: "fenced" | "unfenced" }) | undefined;
  /** The tree is not known to be whole. */
  #tree: Halt | undefined;
  /** Commits fail for a reason of our own. */
  #fault: Halt | undefined;
  #reach: Reach = "ok";

  constructor(options: StandingOptions) {
    this.#options = options;
  }

  /** True once no more commits will be made by this process. */
  get isFinal(): boolean {
    return this.#final !== undefined;
  }

  /** Why nothing may be committed now; undefined where it may be tried. */
  get obstacle(): Error | undefined {
    const halt = this.#final ?? this.#tree;
    return halt && new Error(`Cannot commit: ${halt.message}`);
  }

  get state(): "fenced" | "unfenced" | "halted" | "unreachable" | "ok" {
    if (this.#final) return this.#final.kind;
    if (this.#tree ?? this.#fault) return "halted";
    return this.#reach === "ok" ? "ok" : "unreachable";
  }

  get reason(): BackupStatus["reason"] {
    const halt = this.#final ?? this.#tree ?? this.#fault;
    if (halt) return { kind: halt.kind, message: halt.message };
    return this.#reach === "ok" ? undefined : { kind: this.#reach, message: REACH[this.#reach] };
  }

  /** The end of all commits of this process. */
  end(result: Extract<CommitResult, { kind: "fenced" | "unfenced" }>): void {
    const message =
      result.kind === "fenced"
        ? `position ${result.by.position} of the backup was written by ${result.by.machine ?? "somebody else"}; this machine stops writing it: stop whichever of the two is not wanted`
        : "the store cannot keep two machines apart; use another one, or BACKUP_FENCE=off";
    this.#final = { kind: result.kind, message };
    const by = result.kind === "fenced" ? { by: result.by } : {};
    this.#options.log.error({ reason: result.kind, ...by }, "No more commits are made here");
    this.#changed(result.kind, message);
  }

  /** The tree turned out not to be whole, or (undefined) to be whole again. */
  setTree(halt: Halt | undefined): void {
    if (halt?.kind === this.#tree?.kind) return;
    this.#tree = halt;
    this.#tell(halt, "The volume is whole again; the backup goes on");
  }

  /** A commit failed for a reason of our own, or of the volume. */
  setFault(error: unknown): void {
    const refusal = this.#refusal();
    if (refusal) this.setTree(refusal);
    if (refusal || this.#fault) return;
    this.#fault = faultOf(error);
    this.#options.log.error({ error }, "Cannot commit; it is tried again");
    this.#changed(haltType(this.#fault), this.#fault.message);
  }

  clearFault(): void {
    if (!this.#fault) return;
    this.#fault = undefined;
    this.#tell(undefined, "Commits are made again");
  }

  setReach(reach: Reach, error: StoreError | undefined): void {
    this.#reach = reach;
    const { log, store, onEvent } = this.#options;
    const fields = { store: store.name, ...(error ? { error } : {}) };
    if (reach === "ok") log.info(fields, REACH.ok);
    else log.error(fields, REACH[reach]);
    onEvent?.({ type: reach === "ok" ? "recovered" : reach, message: REACH[reach] });
  }

  /** Undefined also where nothing can be told now: what has failed says as much. */
  #refusal(): Halt | undefined {
    try {
      return this.#options.refuse?.();
    } catch {
      return undefined;
    }
  }

  #tell(halt: Halt | undefined, well: string): void {
    const { log } = this.#options;
    if (halt) log.error({ reason: halt.kind }, halt.message);
    else log.info({}, well);
    this.#changed(halt ? haltType(halt) : "resumed", halt?.message ?? well);
  }

  #changed(type: ReplicatorEvent["type"], message: string): void {
    this.#options.onEvent?.({ type, message });
    this.#options.onChange(this.obstacle);
  }
}

function faultOf(error: unknown): Halt {
  if (isOutOfDescriptors(error)) return { kind: "no_descriptors", message: NO_DESCRIPTORS };
  const message = error instanceof Error ? error.message : String(error);
  return { kind: isDamagedIndex(error) ? "damaged_index" : "internal", message };
}

function haltType({ kind }: Halt): "halted" | "damaged_index" {
  return kind === "damaged_index" ? kind : "halted";
}
