import { expect, setDefaultTimeout, test } from "bun:test";

import { httpProbe, tcpProbe } from "../../src/supervisor/probe.ts";
import type { Running } from "../../src/supervisor/spec.ts";

setDefaultTimeout(30_000);

const running: Running = { pid: 1, signal: () => {}, exited: new Promise(() => {}) };
const never = new AbortController().signal;

function serve(fetch: (request: Request) => Response | Promise<Response>) {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch });
  return {
    port: Number(server.port),
    url: `http://127.0.0.1:${server.port}/`,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

/** A port that nobody listens on. */
async function closedPort(): Promise<number> {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const port = Number(server.port);
  await server.stop(true);
  return port;
}

test.each([
  [200, undefined],
  [204, undefined],
  [302, "answered 302"],
  [404, "answered 404"],
  [503, "answered 503"],
])("httpProbe takes an answer %d for %p", async (status, expected) => {
  await using server = serve(
    () => new Response(null, { status, headers: { location: "http://127.0.0.1:1/" } }),
  );
  expect(await httpProbe(server.url)(running, never)).toBe(expected);
});

test("httpProbe judges the body and sends its headers", async () => {
  await using server = serve((request) =>
    Response.json({ status: request.headers.get("x-want") ?? "started" }),
  );
  const check = (body: string) => (body.includes('"started"') ? undefined : "not started");
  expect(await httpProbe(server.url, { check })(running, never)).toBeUndefined();
  const headers = { "x-want": "draining" };
  expect(await httpProbe(server.url, { check, headers })(running, never)).toBe("not started");
});

test("httpProbe reads no more of a body than it must", async () => {
  await using server = serve(
    () =>
      new Response(
        new ReadableStream({
          pull: (controller) => controller.enqueue(new Uint8Array(64 * 1024).fill(120)),
        }),
      ),
  );
  let length = 0;
  const check = (body: string) => {
    length = body.length;
    return undefined;
  };
  expect(await httpProbe(server.url, { check })(running, never)).toBeUndefined();
  expect(length).toBe(64 * 1024);
});

test("httpProbe ends with its signal", async () => {
  await using server = serve(() => new Promise(() => {}));
  const abort = new AbortController();
  const answer = httpProbe(server.url)(running, abort.signal);
  abort.abort(new Error("late"));
  await expect(answer).rejects.toThrow("late");
});

test("httpProbe and tcpProbe throw where nobody listens", async () => {
  const port = await closedPort();
  await expect(httpProbe(`http://127.0.0.1:${port}/`)(running, never)).rejects.toThrow();
  await expect(tcpProbe(port)(running, never)).rejects.toThrow();
});

test("tcpProbe says yes where somebody accepts", async () => {
  await using server = serve(() => new Response());
  expect(await tcpProbe(server.port)(running, never)).toBeUndefined();
});
