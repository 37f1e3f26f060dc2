import { z } from "zod";

import type { Clock } from "../../platform/clock.ts";
import type { Owner } from "../../volume/dir.ts";
import type { Dir } from "../../volume/dir.ts";
import type { OpenFile } from "./open-file.ts";

/** What starting a process, the slowest disk and waiting for a lock may take, for each database. */
const MIN_LIMIT_MS = 14_000;
const BYTES_PER_MS = 4 * 1024;
/** Far more than the answers of one process. */
const MAX_OUTPUT_BYTES = 256 * 1024;
/** What a process said last has arrived by then. */
const AFTER_EXIT_MS = 200;
/** Said by a process before it looks at its first database. */
const READY = "ready";
/** The child's first descriptor after the three standard ones. */
const FIRST_FD = 3;

/** What the process is asked to do with one database. Numbers of descriptors are those of the child. */
export interface ChildJob {
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

const tookMs = z.number().min(0);
const answerSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("copied"), tookMs }),
  z.object({
    /** `failed`: SQLite cannot, because of a lock, a journal or permissions. `lost`: not what was meant, or no answer. */
    kind: z.enum(["corrupt", "not_a_database", "failed", "lost"]),
    message: z.string(),
    tookMs,
  }),
]);

/** One line for each job, in their order. */
export type ChildAnswer = Readonly<z.infer<typeof answerSchema>>;

export interface Question {
  readonly job: Omit<ChildJob, "folder" | "output">;
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

/** Where the answers go. */
export interface Answering {
  readonly question: Question;
  readonly answer: (answer: ChildAnswer) => void;
}

interface RunOptions extends SqliteProcessOptions {
  /** Called once for a question that is not answered after so long; true ends the process. */
  readonly slow: { readonly afterMs: number; readonly evict: (behind: number) => boolean };
}

/** How a process ended: how many answers it gave, in the order of the questions. */
export interface Ended {
  readonly answered: number;
  /** Why there are not more. */
  readonly reason: string;
  /** How long it was at the first one that it did not answer. */
  readonly tookMs: number;
  /** True where that one was slow, and `evict` said so. */
  readonly evicted: boolean;
}

/** Puts questions to a process of their own. Resolves when it has ended; never rejects. */
export async function runProcess(
  batch: readonly Answering[],
  { clock, user, signal, slow }: RunOptions,
): Promise<Ended> {
  let answered = 0;
  let evicted = false;
  let since = clock.monotonic();
  let reason = "the process that reads databases ended without an answer";
  const ended = (): Ended => ({ answered, reason, tookMs: clock.monotonic() - since, evicted });
  if (signal.aborted) return { ...ended(), reason: "the reader was stopped" };
  let child: SqliteChild;
  try {
    child = spawn(batch, user);
  } catch (error) {
    return { ...ended(), reason: String(error) };
  }
  const kill = (why: string): void => {
    reason = why;
    child.kill("SIGKILL");
  };
  const timers: (() => void)[] = [];
  const cancel = (): void => {
    for (const end of timers.splice(0)) end();
  };
  const next = (options: { readonly isReady: boolean }): void => {
    cancel();
    since = clock.monotonic();
    const { question } = batch[answered] ?? {};
    if (!question) return;
    const limitMs = MIN_LIMIT_MS + question.sizeBytes / BYTES_PER_MS;
    timers.push(
      clock.after(limitMs, () => kill(`not read within ${Math.round(limitMs / 1000)} s`)),
    );
    if (!options.isReady) return;
    timers.push(
      clock.after(slow.afterMs, () => {
        evicted = slow.evict(batch.length - answered - 1);
        if (evicted) kill("it takes long");
      }),
    );
  };
  const take = (line: string): void => {
    if (line === READY && answered === 0) return next({ isReady: true });
    const answer = parseAnswer(line, clock.monotonic() - since);
    const waiting = batch[answered];
    if (!answer || !waiting) return kill("it said what is no answer");
    answered += 1;
    waiting.answer(answer);
    next({ isReady: true });
  };
  const onAbort = (): void => kill("the reader was stopped");
  signal.addEventListener("abort", onAbort, { once: true });
  next({ isReady: false });
  const reader = child.stdout.getReader();
  const reading = readLines(() => reader.read(), {
    take,
    onTooMuch: () => kill("it said too much"),
  });
  await child.exited;
  // Whoever may trace the process may hold its output open, for as long as he likes.
  await Promise.race([reading, clock.sleep(AFTER_EXIT_MS)]);
  await reader.cancel().catch(() => undefined);
  await reading;
  cancel();
  signal.removeEventListener("abort", onAbort);
  return ended();
}

function spawn(batch: readonly Answering[], user: Owner | undefined): SqliteChild {
  const jobs = batch.map(({ question }, id) => ({
    ...question.job,
    folder: FIRST_FD + 2 * id,
    output: FIRST_FD + 2 * id + 1,
  }));
  const program = new URL("./sqlite-child.ts", import.meta.url).pathname;
  return Bun.spawn([process.execPath, program, JSON.stringify(jobs)], {
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
  }) as SqliteChild;
}

type SqliteChild = Pick<Bun.Subprocess<"ignore", "pipe", "ignore">, "stdout" | "exited" | "kill">;

/** Takes lines until the end, or until there are more than there can be. Never rejects. */
async function readLines(
  read: () => Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>,
  { take, onTooMuch }: { readonly take: (line: string) => void; readonly onTooMuch: () => void },
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  let bytes = 0;
  for (;;) {
    const { done, value } = await read().catch(() => ({ done: true, value: undefined }));
    if (done || !value) return;
    bytes += value.length;
    if (bytes > MAX_OUTPUT_BYTES) return onTooMuch();
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) take(line);
  }
}

/** The process runs as the agent's user, who can speak in its name: what it says is judged as anything from outside. */
function parseAnswer(line: string, elapsedMs: number): ChildAnswer | undefined {
  try {
    const answer = answerSchema.parse(JSON.parse(line));
    return { ...answer, tookMs: Math.min(answer.tookMs, elapsedMs) };
  } catch {
    return undefined;
  }
}
