import type { Clock } from "../platform/clock.ts";
import type { Probe, Running, ServiceSpec } from "./spec.ts";

const ADMISSION_EVERY_MS = 250;
const ADMISSION_LIMIT_MS = 5_000;

/** What the checks of one running child find. Each says it once per answer. */
interface HealthEvents {
  /** Not admitted yet, or a miss that does not count as dead. */
  unready(reason: string): void;
  /** The first yes, or a yes after a miss. */
  ready(): void;
  /** It must be restarted. */
  failed(reason: string): void;
}

export interface HealthOptions {
  readonly clock: Clock;
  /** Ends the checks: the child has ended, or is being stopped. */
  readonly signal: AbortSignal;
  readonly events: HealthEvents;
}

/** Asks for admission, then for life, until the signal. Never rejects. */
export async function checkHealth(
  spec: Pick<ServiceSpec, "admission" | "liveness">,
  running: Running,
  options: HealthOptions,
): Promise<void> {
  try {
    if (spec.admission) await admit(spec.admission, running, options);
    if (options.signal.aborted) return;
    options.events.ready();
    if (spec.liveness) await watch(spec.liveness, running, options);
  } catch (error) {
    if (!options.signal.aborted) throw error;
  }
}

async function admit(
  admission: NonNullable<ServiceSpec["admission"]>,
  running: Running,
  { clock, signal, events }: HealthOptions,
): Promise<void> {
  const begun = clock.monotonic();
  for (;;) {
    const reason = await ask(admission.probe, running, {
      clock,
      signal,
      limitMs: Math.min(ADMISSION_LIMIT_MS, admission.timeoutMs),
    });
    if (reason === undefined || signal.aborted) return;
    events.unready(`not admitted: ${reason}`);
    if (clock.monotonic() - begun >= admission.timeoutMs) {
      events.failed(`not admitted within ${admission.timeoutMs / 1_000} s: ${reason}`);
    }
    await clock.sleep(ADMISSION_EVERY_MS, signal);
  }
}

async function watch(
  liveness: NonNullable<ServiceSpec["liveness"]>,
  running: Running,
  { clock, signal, events }: HealthOptions,
): Promise<void> {
  const admitted = clock.monotonic();
  let misses = 0;
  for (;;) {
    await clock.sleep(liveness.everyMs, signal);
    const limitMs = liveness.timeoutMs;
    const reason = await ask(liveness.probe, running, { clock, signal, limitMs });
    if (signal.aborted) return;
    if (reason === undefined) {
      if (misses >= liveness.misses) events.ready();
      misses = 0;
      continue;
    }
    misses += 1;
    if (misses < liveness.misses) continue;
    events.unready(`not alive: ${reason}`);
    if (clock.monotonic() - admitted >= (liveness.graceMs ?? 0)) {
      events.failed(`not alive: ${reason}`);
    }
  }
}

/** One question. A throw and a late answer are a no; `signal` ends it early. */
async function ask(
  probe: Probe,
  running: Running,
  options: { readonly clock: Clock; readonly signal: AbortSignal; readonly limitMs: number },
): Promise<string | undefined> {
  const { clock, signal, limitMs } = options;
  // One controller per question: a signal combined from the child's would pile up on it for as long as the child lives.
  const question = new AbortController();
  const late = Promise.withResolvers<never>();
  question.signal.addEventListener("abort", () => late.reject(question.signal.reason), {
    once: true,
  });
  const giveUp = (): void => question.abort(signal.reason);
  signal.addEventListener("abort", giveUp, { once: true });
  const cancel = clock.after(limitMs, () =>
    question.abort(new Error(`no answer within ${limitMs} ms`)),
  );
  try {
    return await Promise.race([probe(running, question.signal), late.promise]);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    cancel();
    signal.removeEventListener("abort", giveUp);
  }
}
