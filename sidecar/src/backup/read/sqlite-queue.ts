import {
  runProcess,
  type Answering,
  type ChildAnswer,
  type Ended,
  type Question,
  type SqliteProcessOptions,
} from "./sqlite-process.ts";

/** Databases that one process reads. */
const BATCH = 16;
/** A database that takes longer is read in a process of its own, and holds up no other. */
const SLOW_MS = 1_000;
/** So many slow ones are read at the same time, */
const ALONE = 2;
/** and so many may wait for that. */
const MAX_ALONE = 32;

interface Waiting extends Answering {
  /** What it cost before it was found to be slow. */
  readonly spentMs: number;
}

/** Asks short-lived processes about databases: what is asked at once goes to one together, and what is slow to one of its own. */
export class SqliteQueue {
  readonly #options: SqliteProcessOptions;
  #quick: Waiting[] = [];
  #slow: Waiting[] = [];
  #isQuickRunning = false;
  #alone = 0;

  constructor(options: SqliteProcessOptions) {
    this.#options = options;
  }

  /** Descriptors must stay open until the answer. Never rejects. */
  ask(question: Question): Promise<ChildAnswer> {
    return new Promise((resolve) => {
      const waiting = { question, answer: resolve, spentMs: 0 };
      // A large one is never begun twice.
      if (question.job.target === undefined) this.#quick.push(waiting);
      else this.#putSlow(waiting);
      // Started a moment later, so that what is asked at once is asked together.
      queueMicrotask(() => this.#start());
    });
  }

  #start(): void {
    if (!this.#isQuickRunning && this.#quick.length > 0) {
      this.#isQuickRunning = true;
      void this.#runQuick(this.#quick.splice(0, BATCH));
    }
    while (this.#alone < ALONE) {
      const next = this.#slow.shift();
      if (!next) break;
      this.#alone += 1;
      void this.#runAlone(next);
    }
  }

  async #runQuick(batch: readonly Waiting[]): Promise<void> {
    let isQuick = true;
    const evict = (behind: number): boolean => {
      // Where nothing else is in that process and there is room, it becomes one of the slow ones as it is.
      if (behind > 0 || this.#alone >= ALONE) return true;
      this.#alone += 1;
      isQuick = false;
      this.#isQuickRunning = false;
      this.#start();
      return false;
    };
    const ended = await this.#run(batch, evict);
    if (isQuick) this.#isQuickRunning = false;
    else this.#alone -= 1;
    const [culprit, ...others] = batch.slice(ended.answered);
    // It had not come to them yet.
    this.#quick.unshift(...others);
    if (culprit && ended.evicted) this.#putSlow({ ...culprit, spentMs: ended.tookMs });
    else if (culprit) lose(culprit, ended);
    this.#start();
  }

  async #runAlone(waiting: Waiting): Promise<void> {
    const { spentMs } = waiting;
    const answer = (answer: ChildAnswer): void =>
      waiting.answer({ ...answer, tookMs: answer.tookMs + spentMs });
    const ended = await this.#run([{ ...waiting, answer }], () => false);
    this.#alone -= 1;
    if (ended.answered === 0) lose(waiting, ended);
    this.#start();
  }

  #run(batch: readonly Waiting[], evict: (behind: number) => boolean): Promise<Ended> {
    return runProcess(batch, { ...this.#options, slow: { afterMs: SLOW_MS, evict } });
  }

  #putSlow(waiting: Waiting): void {
    if (this.#slow.length < MAX_ALONE) this.#slow.push(waiting);
    else lose(waiting, { reason: "too many others take long", tookMs: 0 });
  }
}

function lose(
  { answer, spentMs }: Waiting,
  { reason, tookMs }: Pick<Ended, "reason" | "tookMs">,
): void {
  answer({ kind: "lost", message: reason, tookMs: tookMs + spentMs });
}
