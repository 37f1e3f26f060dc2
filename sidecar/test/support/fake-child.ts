import type { Child, Ended } from "../../src/supervisor/child.ts";

/** A child without a process: it ends when the test says so, and keeps what it was sent. */
export class FakeChild implements Child {
  readonly pid: number;
  readonly startTicks = 1;
  readonly signals: string[] = [];
  /** Signals that end it by themselves. */
  readonly mortalTo: readonly string[];
  readonly #exited = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<Ended>();

  constructor(pid: number, mortalTo: readonly string[] = ["SIGTERM", "SIGKILL"]) {
    this.pid = pid;
    this.mortalTo = mortalTo;
  }

  get exited(): Promise<void> {
    return this.#exited.promise;
  }

  get ended(): Promise<Ended> {
    return this.#ended.promise;
  }

  signal(name: NodeJS.Signals): void {
    this.signals.push(name);
    if (this.mortalTo.includes(name)) this.end({ signal: name });
  }

  signalGroup(name: NodeJS.Signals): void {
    this.signal(name);
  }

  end(how: {
    readonly code?: number;
    readonly signal?: string;
    readonly lastLines?: readonly string[];
  }): void {
    this.#exited.resolve();
    this.#ended.resolve({ code: how.code, signal: how.signal, lastLines: how.lastLines ?? [] });
  }
}
