import type { Clock } from "../../platform/clock.ts";
import type { Owner } from "../../volume/dir.ts";
import type { Dir } from "../../volume/dir.ts";
import type { OpenFile } from "./open-file.ts";

/** Databases that one process reads. */
const BATCH = 16;
/** What starting a process and the slowest disk may take. */
const MIN_LIMIT_MS = 30_000;
/** What waiting for a lock may take, for each database. */
const LOCK_MS = 4_000;
const BYTES_PER_MS = 4 * 1024;
/** The child's first descriptor after the three standard ones. */
const FIRST_FD = 3;

/** What the process is asked to do with one database. Numbers of descriptors are those of the child. */
export interface ChildJob {
  readonly id: number;
  /** The folder the database is in, and its name there. */
  readonly folder: number;
  readonly name: string;
  /** "dev:ino" of the file that is meant. */
  readonly inode: string;
  /**
   * `rest`: opened without locks and without making a log; the caller checks that nobody wrote. `shared`: among others,
   * for reading. `own`: nobody else's, so that a journal may be put back.
   */
  readonly mode: "rest" | "shared" | "own";
  /** Where the copy goes: an open file, or, for a large database, the absolute path of a new one. */
  readonly output: number;
  readonly target?: string | undefined;
  /** Also look for damage, in the copy. */
  readonly check: boolean;
}

export type ChildAnswer = { readonly tookMs: number } & (
  | { readonly kind: "copied" }
  | {
      /** `failed`: SQLite cannot, because of a lock, a journal or permissions. `lost`: not what was meant, or no answer. */
      readonly kind: "corrupt" | "not_a_database" | "failed" | "lost";
      readonly message: string;
    }
);

export interface Question {
  readonly job: Omit<ChildJob, "id" | "folder" | "output">;
  readonly folder: Dir;
  readonly output: OpenFile;
  /** For the time it may take. */
  readonly sizeBytes: number;
}

export interface SqliteProcessOptions {
  readonly clock: Clock;
  /** The user to run as; the sidecar's own by default. */
  readonly user?: Owner | undefined;
  /** Ends the process; what is asked then is `lost`. */
  readonly signal: AbortSignal;
}

interface Waiting {
  readonly question: Question;
  readonly resolve: (answer: ChildAnswer) => void;
}

/** Asks short-lived processes about databases: one process at a time, and what is asked meanwhile goes to the next together. */
export class SqliteProcess {
  readonly #options: SqliteProcessOptions;
  #waiting: Waiting[] = [];
  #running = false;

  constructor(options: SqliteProcessOptions) {
    this.#options = options;
  }

  /** Descriptors must stay open until the answer. Never rejects. */
  ask(question: Question): Promise<ChildAnswer> {
    return new Promise((resolve) => {
      this.#waiting.push({ question, resolve });
      // Started a moment later, so that what is asked at once is asked together.
      if (!this.#running) {
        this.#running = true;
        queueMicrotask(() => void this.#work());
      }
    });
  }

  async #work(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, BATCH);
      const pending = new Map(batch.map((waiting, id) => [id, waiting]));
      const settle = (id: number, answer: ChildAnswer): void => {
        pending.get(id)?.resolve(answer);
        pending.delete(id);
      };
      const message = await this.#run(batch, settle).catch((error: unknown) => String(error));
      for (const { resolve } of pending.values()) resolve({ kind: "lost", message, tookMs: 0 });
    }
    this.#running = false;
  }

  /** Resolves when the process has ended, to why the jobs without an answer have none. */
  async #run(
    batch: readonly Waiting[],
    settle: (id: number, answer: ChildAnswer) => void,
  ): Promise<string> {
    const { clock, user, signal } = this.#options;
    if (signal.aborted) return "the reader was stopped";
    const jobs = batch.map(({ question }, id) => ({
      ...question.job,
      id,
      folder: FIRST_FD + 2 * id,
      output: FIRST_FD + 2 * id + 1,
    }));
    const child = Bun.spawn(
      [
        process.execPath,
        new URL("./sqlite-child.ts", import.meta.url).pathname,
        JSON.stringify(jobs),
      ],
      {
        // A folder of the agent's could hold settings for the runtime, and our environment holds secrets.
        cwd: "/",
        env: { BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0" },
        stdio: [
          "ignore",
          "pipe",
          "ignore",
          ...batch.flatMap(({ question }) => [question.folder.fd, question.output.fd]),
        ],
        ...(user ? { uid: user.uid, gid: user.gid } : {}),
      },
    );
    const bytes = batch.reduce((sum, { question }) => sum + question.sizeBytes, 0);
    const limitMs = MIN_LIMIT_MS + batch.length * LOCK_MS + bytes / BYTES_PER_MS;
    let reason = "the process that reads databases ended without an answer";
    const kill = (why: string): void => {
      reason = why;
      child.kill("SIGKILL");
    };
    const cancelLimit = clock.after(limitMs, () =>
      kill(`not read within ${Math.round(limitMs / 1000)} s`),
    );
    const onAbort = (): void => kill("the reader was stopped");
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      let rest = "";
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout as ReadableStream<Uint8Array>) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          const { id, ...answer } = JSON.parse(line) as ChildAnswer & { id: number };
          settle(id, answer);
        }
      }
      await child.exited;
      return reason;
    } finally {
      cancelLimit();
      signal.removeEventListener("abort", onAbort);
      child.kill("SIGKILL");
    }
  }
}
