import { expect, test } from "bun:test";

import { getJson } from "../../src/gateway/http-probe.ts";
import { freePorts } from "../support/free-ports.ts";

function serve(fetch: () => Response | Promise<Response>) {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch });
  return { port: server.port ?? 0, [Symbol.asyncDispose]: () => server.stop(true) };
}

const soon = () => AbortSignal.timeout(5_000);

test.each([
  ["JSON", () => Response.json({ ok: true }, { status: 503 }), { status: 503, body: { ok: true } }],
  ["a page", () => new Response("<html>"), { status: 200, body: undefined }],
  ["nothing", () => new Response(null, { status: 204 }), { status: 204, body: undefined }],
  ["far too much", () => Response.json("x".repeat(1_000_000)), { status: 200, body: undefined }],
  ["a redirect", () => Response.redirect("/else", 302), { status: 302, body: undefined }],
] as const)("an answer of %s is taken as it is", async (_name, answer, expected) => {
  await using server = serve(answer);
  expect(await getJson(server.port, "/", soon())).toEqual(expected);
});

test("nobody there and no answer in time are errors", async () => {
  const [port = 0] = await freePorts(1);
  await expect(getJson(port, "/", soon())).rejects.toThrow();
  await using server = serve(() => new Promise<Response>(() => undefined));
  await expect(getJson(server.port, "/", AbortSignal.timeout(100))).rejects.toThrow();
});

test("a proxy in the environment is not asked", async () => {
  const before = process.env["HTTP_PROXY"];
  process.env["HTTP_PROXY"] = "http://127.0.0.1:9";
  try {
    await using server = serve(() => Response.json({ ok: true }));
    expect(await getJson(server.port, "/", soon())).toMatchObject({ status: 200 });
  } finally {
    if (before === undefined) delete process.env["HTTP_PROXY"];
    else process.env["HTTP_PROXY"] = before;
  }
});
