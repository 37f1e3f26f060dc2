import { get } from "node:http";

/** Enough for every answer that a probe looks at. */
const MAX_BODY_BYTES = 64 * 1024;

export interface Answer {
  readonly status: number;
  /** Parsed JSON; undefined where it is none, or far too long to be a probe's. */
  readonly body: unknown;
}

/**
 * Asks `http://127.0.0.1:port/path`, each time over a connection of its own: one to the last process must not answer for
 * this one. Not by fetch, which would ask the proxy that HTTP_PROXY names. Throws where nobody answers.
 */
export function getJson(port: number, path: string, signal: AbortSignal): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const request = get({ host: "127.0.0.1", port, path, agent: false, signal }, (response) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const finish = (): void => {
      const body = bytes > MAX_BODY_BYTES ? undefined : parseJson(Buffer.concat(chunks).toString());
      resolve({ status: response.statusCode ?? 0, body });
    };
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MAX_BODY_BYTES) {
        chunks.push(chunk);
        return;
      }
      finish();
      request.destroy();
    });
    response.on("end", finish);
    response.on("error", reject);
  });
  request.on("error", reject);
  return promise;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
