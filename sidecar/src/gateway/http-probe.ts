/** Enough for every answer that a probe looks at. */
const MAX_BODY_BYTES = 64 * 1024;

/** Asks `http://127.0.0.1:port/path`. The body is parsed JSON, undefined where it is none. Throws where nobody answers. */
export async function getJson(
  port: number,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: unknown }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    signal,
    redirect: "manual",
    // Without keep-alive: a connection to the last process must not answer for this one.
    headers: { connection: "close" },
  });
  return { status: response.status, body: parseJson(await readBounded(response)) };
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return "";
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
