import type { Probe } from "./spec.ts";

export interface HttpProbeOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** Judges the body of a 2xx answer (cut at 64 KiB): undefined for yes, or why not. Without it any 2xx is a yes. */
  readonly check?: (body: string) => string | undefined;
}

const BODY_BYTES = 64 * 1024;

/** Yes if `url` answers 2xx (redirects are not followed) and `check` agrees. */
export function httpProbe(url: string, options: HttpProbeOptions = {}): Probe {
  const { headers = {}, check } = options;
  return async (_running, signal) => {
    const response = await fetch(url, {
      headers: { ...headers, connection: "close" },
      redirect: "manual",
      signal,
    });
    if (!response.ok) {
      await response.body?.cancel();
      return `answered ${response.status}`;
    }
    const body = await readStart(response);
    return check?.(body);
  };
}

/** Yes if something accepts a connection on `port`. */
export function tcpProbe(port: number, options: { readonly host?: string } = {}): Probe {
  const { host = "127.0.0.1" } = options;
  return async (_running, signal) => {
    const socket = await Bun.connect({ hostname: host, port, socket: { data() {} } });
    socket.end();
    signal.throwIfAborted();
    return undefined;
  };
}

async function readStart(response: Response): Promise<string> {
  if (!response.body) return "";
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let text = "";
  while (text.length < BODY_BYTES) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    text += decoder.decode(value, { stream: true });
  }
  await reader.cancel();
  return text.slice(0, BODY_BYTES);
}
