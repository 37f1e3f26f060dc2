// Nothing of ours is imported statically: as PID 1 a signal without a handler is dropped, and the handlers must stand
// before any module of ours has been read.

const stop = new AbortController();
const hurry = new AbortController();
/** Two signals within this time are one: Ctrl-C reaches us twice when npm passes it on as well. */
const SAME_SIGNAL_MS = 1_000;
let firstSignalAt: number | undefined;
let exitCode = 0;

for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  process.on(name, () => {
    const now = performance.now();
    firstSignalAt ??= now;
    if (now - firstSignalAt < SAME_SIGNAL_MS) stop.abort(new Error(`${name} was received`));
    else hurry.abort(new Error(`A second signal, ${name}, was received`));
  });
}
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    exitCode = 1;
    complain("A fault in the sidecar itself; stopping", error);
    if (stop.signal.aborted) hurry.abort(error);
    stop.abort(error);
  });
}

import("./machine.ts")
  .then(({ runMachine }) =>
    runMachine({ environment: process.env, stop: stop.signal, hurry: hurry.signal }),
  )
  .then(
    (code) => process.exit(exitCode === 0 ? code : exitCode),
    (error: unknown) => {
      complain("Cannot run the machine", error);
      process.exit(1);
    },
  );

/** A log line without the logger, which may be what failed to load. */
function complain(message: string, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  const line = {
    level: "error",
    time: new Date().toISOString(),
    error: { message: text },
    message,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
