import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { filesApp, filesVolume, ORIGIN, SIGNING_SECRET, TOKEN } from "./support/files-volume.ts";

const bearer = { authorization: `Bearer ${TOKEN}` };

test.each(["/files", ""])("the files are served under %j", async (prefix) => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/a"), "x");
  const { app } = filesApp(volume);
  for (const route of ["/list", "/read?path=a", "/download?path=a"]) {
    expect((await app.request(prefix + route, { headers: bearer })).status).toBe(200);
    expect((await app.request(prefix + route)).status).toBe(401);
  }
  const health = await app.request(`${prefix}/health`);
  expect(await health.json()).toEqual({ status: "ok", service: "file-server" });
});

test.each([
  ["/machine/livez", 200, 200],
  ["/machine/status", 401, 200],
  ["/machine/unheard-of", 401, 404],
  ["/unheard-of", 401, 404],
  ["/files/unheard-of", 401, 404],
  ["/", 401, 404],
])("%s is %i without and %i with the token", async (path, without, withToken) => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  expect((await app.request(path)).status).toBe(without);
  const response = await app.request(path, { headers: bearer });
  expect(response.status).toBe(withToken);
  if (withToken === 404) {
    expect(await response.json()).toEqual({
      error: "No such route",
      code: "no_route",
      requestId: response.headers.get("x-request-id"),
    });
  }
});

test("a signed URL opens files and the machine's routes", async () => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  const exp = Math.floor(Date.now() / 1_000) + 60;
  const sig = createHmac("sha256", SIGNING_SECRET).update(`user-1.${exp}`).digest("base64url");
  for (const path of ["/files/list", "/machine/status"]) {
    expect((await app.request(`${path}?userId=user-1&exp=${exp}&sig=${sig}`)).status).toBe(200);
  }
});

test("a preflight is answered before the token is asked for, to the listed origin alone", async () => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  const preflight = (origin: string) =>
    app.request("/files/write?path=a", {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
      },
    });
  const allowed = await preflight(ORIGIN);
  expect(allowed.status).toBe(204);
  expect(allowed.headers.get("access-control-allow-origin")).toBe(ORIGIN);
  expect(allowed.headers.get("access-control-allow-credentials")).toBe("true");
  expect(allowed.headers.get("access-control-allow-methods")).toContain("DELETE");
  expect(allowed.headers.get("access-control-allow-headers")).toContain("authorization");
  for (const origin of [`${ORIGIN}.evil.example`, "http://dashboard.example", "null", ""]) {
    expect((await preflight(origin)).headers.get("access-control-allow-origin")).toBeNull();
  }
});

test.each([
  ["/files/list", bearer, 200],
  ["/files/list", {}, 401],
  ["/files/read?path=missing", bearer, 404],
  ["/machine/broken", bearer, 500],
])("the answer of %s has the headers that every answer has", async (path, headers, status) => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  const response = await app.request(path, { headers: { ...headers, origin: ORIGIN } });
  expect(response.status).toBe(status);
  expect(response.headers.get("access-control-allow-origin")).toBe(ORIGIN);
  expect(response.headers.get("vary")).toContain("Origin");
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(response.headers.get("referrer-policy")).toBe("no-referrer");
  expect(response.headers.get("x-request-id")).toMatch(/^[\w-]{8,}$/);
});

test("an unexpected error says nothing but a request id, which the log explains", async () => {
  using volume = filesVolume();
  const { app, log } = filesApp(volume);
  const response = await app.request("/machine/broken", { headers: bearer });
  const requestId = response.headers.get("x-request-id");
  expect(await response.json()).toEqual({ error: "Internal error", code: "internal", requestId });
  expect(log.lines.find((line) => line["level"] === "error")).toMatchObject({
    requestId,
    error: { message: "the secret detail" },
  });
});

test("each request is one line of the log, without its query", async () => {
  using volume = filesVolume();
  const { app, log } = filesApp(volume);
  await app.request(`/files/read?path=private-name&token=${TOKEN}`);
  await app.request(`/files/read?path=private-name&token=wrong-token`);
  await app.request("/files/health");
  expect(log.lines.map(({ level, status, path }) => [level, status, path])).toEqual([
    ["info", 404, "/files/read"],
    ["info", 401, "/files/read"],
    ["debug", 200, "/files/health"],
  ]);
  const text = JSON.stringify(log.lines);
  for (const secret of [TOKEN, "wrong-token", "private-name"]) expect(text).not.toContain(secret);
});

test("no error repeats the token", async () => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  for (const query of [
    `token=${TOKEN}`,
    `token=${TOKEN}&path=%ff`,
    `token=${TOKEN}&path=missing`,
  ]) {
    expect(await (await app.request(`/files/read?${query}`)).text()).not.toContain(TOKEN);
  }
});
