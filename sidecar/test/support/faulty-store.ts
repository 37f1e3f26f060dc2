import { systemClock, type Clock } from "../../src/platform/clock.ts";
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
  type StoreErrorKind,
} from "../../src/store/store.ts";

export type StoreOperation = "put" | "get" | "stream" | "head" | "list" | "delete";

/** One call of the store. */
export interface Step {
  readonly operation: StoreOperation;
  /** The key; of a list the prefix, of a delete the first key. */
  readonly key: string;
  /** Which call of this operation it is, from 1, and which of this operation on this key. */
  readonly count: number;
  readonly countOfKey: number;
  readonly ifAbsent: boolean;
  /** "before" the store is asked; "after" it has done what was asked. */
  readonly phase: "before" | "after";
}

export type Fault =
  /** In phase "before" nothing happens in the store; in phase "after" it has happened and the answer is lost. */
  | { readonly fail: StoreErrorKind | Error }
  /** Waits until the caller's signal aborts. */
  | { readonly hang: true }
  | { readonly delayMs: number }
  /** Changes the bytes of a get or stream ("after"), or of a put ("before"). */
  | { readonly corrupt: (bytes: Uint8Array) => Uint8Array };

/** Says what goes wrong at a step; undefined lets it pass. A promise holds the step up: a hook to do things in between. */
export type FaultScript = (
  step: Step,
) => Fault | undefined | void | Promise<Fault | undefined | void>;

/** Flips the last bit. */
export function flipBit(bytes: Uint8Array): Uint8Array {
  const changed = new Uint8Array(bytes);
  const last = changed.length - 1;
  if (last >= 0) changed[last] = (changed[last] ?? 0) ^ 1;
  return changed;
}

/** Runs several scripts: the first fault counts. */
export function allOf(...scripts: readonly FaultScript[]): FaultScript {
  return async (step) => {
    for (const script of scripts) {
      const fault = await script(step);
      if (fault) return fault;
    }
    return undefined;
  };
}

/** Gives `fault` at every step that matches all of `match`, at most `times` times. */
export function faultAt(match: Partial<Step>, fault: Fault, times = Infinity): FaultScript {
  let left = times;
  return (step) => {
    const wanted = Object.entries(match).every(
      ([name, value]) => step[name as keyof Step] === value,
    );
    if (!wanted || left === 0) return undefined;
    left -= 1;
    return fault;
  };
}

/** A store in which things go wrong as the script says. `script` may be replaced while it runs. */
export class FaultyStore implements Store {
  readonly name: string;
  /** Every step so far, in both phases: what was asked, and what got done. */
  readonly steps: Step[] = [];
  script: FaultScript;
  readonly #store: Store;
  readonly #clock: Clock;

  constructor(store: Store, script: FaultScript = () => undefined, clock: Clock = systemClock) {
    this.name = store.name;
    this.script = script;
    this.#store = store;
    this.#clock = clock;
  }

  put(key: string, body: Body, options: PutOptions = {}): Promise<void> {
    return this.#run({ operation: "put", key, options }, (corrupt) =>
      this.#store.put(key, corrupt ? corrupted(body, corrupt) : body, options),
    );
  }

  get(key: string, options: GetOptions = {}): Promise<Uint8Array> {
    return this.#run(
      { operation: "get", key, options },
      () => this.#store.get(key, options),
      (bytes, corrupt) => corrupt(bytes),
    );
  }

  stream(key: string, options: GetOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#run(
      { operation: "stream", key, options },
      () => this.#store.stream(key, options),
      (stream, corrupt) =>
        stream.pipeThrough(
          new TransformStream<Uint8Array, Uint8Array>({
            transform: (chunk, controller) => controller.enqueue(corrupt(chunk)),
          }),
        ),
    );
  }

  head(key: string, options: SignalOption = {}): Promise<ObjectInfo | undefined> {
    return this.#run({ operation: "head", key, options }, () => this.#store.head(key, options));
  }

  list(prefix: string, options: ListOptions = {}): Promise<ListPage> {
    return this.#run({ operation: "list", key: prefix, options }, () =>
      this.#store.list(prefix, options),
    );
  }

  delete(keys: readonly string[], options: SignalOption = {}): Promise<void> {
    const [key = ""] = keys;
    return this.#run({ operation: "delete", key, options }, () =>
      this.#store.delete(keys, options),
    );
  }

  async #run<T>(
    call: {
      readonly operation: StoreOperation;
      readonly key: string;
      readonly options: PutOptions;
    },
    act: (corrupt: Corrupt | undefined) => Promise<T>,
    change?: (result: T, corrupt: Corrupt) => T,
  ): Promise<T> {
    const { operation, key, options } = call;
    const earlier = this.steps.filter(
      (step) => step.operation === operation && step.phase === "before",
    );
    const step: Step = {
      operation,
      key,
      count: earlier.length + 1,
      countOfKey: earlier.filter((other) => other.key === key).length + 1,
      ifAbsent: options.ifAbsent ?? false,
      phase: "before",
    };
    const result = await act(await this.#meet(step, options.signal));
    const corrupt = await this.#meet({ ...step, phase: "after" }, options.signal);
    return corrupt && change ? change(result, corrupt) : result;
  }

  async #meet(step: Step, signal: AbortSignal | undefined): Promise<Corrupt | undefined> {
    this.steps.push(step);
    const fault = await this.script(step);
    if (!fault) return undefined;
    if ("corrupt" in fault) return fault.corrupt;
    if ("delayMs" in fault) await this.#clock.sleep(fault.delayMs, signal);
    else if ("hang" in fault) await aborted(signal);
    else if (fault.fail instanceof Error) throw fault.fail;
    else {
      const when = step.phase === "before" ? "before" : "after it happened";
      throw new StoreError(
        fault.fail,
        `Cannot ${step.operation} "${step.key}": ${fault.fail} ${when}, as the test wants it`,
      );
    }
    return undefined;
  }
}

type Corrupt = (bytes: Uint8Array) => Uint8Array;

function corrupted(body: Body, corrupt: Corrupt): Body {
  if (body instanceof Uint8Array) return corrupt(body);
  return {
    sizeBytes: body.sizeBytes,
    async *open() {
      for await (const chunk of body.open()) yield corrupt(chunk);
    },
  };
}

function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason as Error);
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}
