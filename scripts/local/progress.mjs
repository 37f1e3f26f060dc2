import { say } from "../install/step.mjs";

const POLL_EVERY_MS = 250;
/** Rarer: each look at the status is a line in the machine's log. */
const STATUS_EVERY_MS = 1_000;
const ANSWER_WITHIN_MS = 2_000;
const RESTORE_LINE_EVERY_MS = 2_000;

/**
 * Polls the machine, printing each change of its state, of what it waits for and of a restore.
 * Resolves with "ready", with "late" when that takes longer than `limitMs`, or with "ended" when
 * the signal aborts first.
 */
export async function showProgress({ origin, token, limitMs, signal }) {
  const deadline = Date.now() + limitMs;
  let shown = "";
  let restoreShownAt = 0;
  let status;
  let statusAt = 0;
  while (!signal.aborted) {
    const ready = await getJson(`${origin}/readyz`, { signal });
    if (ready?.status === 200) return "ready";
    if (Date.now() - statusAt >= STATUS_EVERY_MS) {
      status = await getJson(`${origin}/machine/status`, { token, signal });
      statusAt = Date.now();
    }
    if (Date.now() > deadline && !status?.body?.backup?.restore) return "late";
    const line = describe(ready?.body, status?.body);
    if (line !== shown && line !== "") say(line);
    shown = line;
    const restore = status?.body?.backup?.restore;
    if (restore && Date.now() - restoreShownAt > RESTORE_LINE_EVERY_MS) {
      say(`  ${describeRestore(restore)}`);
      restoreShownAt = Date.now();
    }
    await pause(POLL_EVERY_MS, signal);
  }
  return "ended";
}

/** { status, body } of a JSON answer, or undefined when there is none. */
async function getJson(url, { token, signal } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const limit = AbortSignal.timeout(ANSWER_WITHIN_MS);
  try {
    const response = await fetch(url, {
      headers,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    return { status: response.status, body: await response.json() };
  } catch {
    return undefined;
  }
}

function describe(ready, status) {
  const state = status?.state ?? (ready ? "booting" : "");
  const waiting = ready?.waitingFor?.length
    ? `, waiting for ${ready.waitingFor.map(name).join(", ")}`
    : "";
  // While it boots, that a part is not there yet is no news.
  const reasons = state === "degraded" ? (status?.reasons ?? []) : [];
  return `${state}${waiting}${reasons.map(({ part, message }) => `\n    ${part}: ${message}`).join("")}`;
}

function describeRestore({ files, filesDone, bytes, bytesDone, etaS }) {
  const left = etaS === undefined ? "" : `, about ${Math.ceil(etaS)} s left`;
  return `restored ${filesDone} of ${files} files, ${megabytes(bytesDone)} of ${megabytes(bytes)} MB${left}`;
}

function megabytes(bytes) {
  return (bytes / 1_000_000).toFixed(1);
}

function name(part) {
  return typeof part === "string" ? part : (part.name ?? JSON.stringify(part));
}

function pause(durationMs, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(finish, durationMs);
    signal.addEventListener("abort", finish, { once: true });
    function finish() {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    }
  });
}
