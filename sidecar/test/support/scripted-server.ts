import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenRequest {
  readonly method: string;
  /** Path and query as they were sent. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

export interface ScriptedAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Answers a request; undefined leaves it without an answer, or answered by way of `response`. */
export type AnswerScript = (
  request: SeenRequest,
  response: ServerResponse,
) => ScriptedAnswer | undefined;

export interface ScriptedServer extends AsyncDisposable {
  readonly endpoint: string;
  /** Every request so far, once its body had arrived. */
  readonly requests: readonly SeenRequest[];
}

/** An HTTP server on loopback that answers as the script says: `await using server = await scriptedServer(…)`. */
export async function scriptedServer(script: AnswerScript): Promise<ScriptedServer> {
  const requests: SeenRequest[] = [];
  const server = createServer((incoming, response) => {
    const chunks: Uint8Array[] = [];
    incoming.on("error", () => undefined);
    incoming.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    incoming.on("end", () => {
      const { method = "", url = "", headers } = incoming;
      const request = { method, url, headers, body: new Uint8Array(Buffer.concat(chunks)) };
      requests.push(request);
      const answer = script(request, response);
      if (!answer) return;
      const body = Buffer.from(answer.body ?? "");
      response.writeHead(answer.status ?? 200, {
        "content-length": String(body.byteLength),
        ...answer.headers,
      });
      response.end(request.method === "HEAD" ? undefined : body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
