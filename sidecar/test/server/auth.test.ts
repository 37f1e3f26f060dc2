import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";

import { Hono } from "hono";

import type { AppEnv } from "../../src/server/app-env.ts";
import { createAuth, type AuthOptions } from "../../src/server/auth.ts";
import { ManualClock } from "../support/manual-clock.ts";

const TOKEN = "token-of-the-gateway";
const SECRET = "secret-of-the-signer";
const NOW_S = 1_800_000_000;

function app(options: Partial<AuthOptions> = {}): Hono<AppEnv> {
  const clock = new ManualClock(NOW_S * 1_000);
  const auth = createAuth({
    token: TOKEN,
    signingSecret: SECRET,
    user: "user-1",
    clock,
    ...options,
  });
  return new Hono<AppEnv>().use(auth).get("/x", (c) => c.text("in"));
}

function sign(user: string, expires: number | string, secret = SECRET): string {
  const signature = createHmac("sha256", secret).update(`${user}.${expires}`).digest("base64url");
  return `userId=${user}&exp=${expires}&sig=${signature}`;
}

const good = sign("user-1", NOW_S + 60);

test.each([
  ["the token as a bearer", `Bearer ${TOKEN}`, "", 200],
  ["the token as a bearer in other case", `bearer ${TOKEN}`, "", 200],
  ["the token in the query", "", `token=${TOKEN}`, 200],
  ["the token in the query beside a wrong bearer", "Bearer wrong", `token=${TOKEN}`, 200],
  ["a signed URL", "", good, 200],
  ["nothing", "", "", 401],
  ["a wrong bearer", "Bearer wrong", "", 401],
  ["a bearer of the same length", `Bearer ${"x".repeat(TOKEN.length)}`, "", 401],
  ["the begin of the token", `Bearer ${TOKEN.slice(0, -1)}`, "", 401],
  ["the token and more", `Bearer ${TOKEN}x`, "", 401],
  ["an empty bearer", "Bearer ", "", 401],
  ["another scheme", `Basic ${TOKEN}`, "", 401],
  ["an empty token", "", "token=", 401],
  ["the signing secret as the token", "", `token=${SECRET}`, 401],
  ["a signed URL that has expired", "", sign("user-1", NOW_S), 401],
  ["a signed URL of somebody else", "", sign("user-2", NOW_S + 60), 401],
  ["a signed URL by another key", "", sign("user-1", NOW_S + 60, "other-secret"), 401],
  ["a signed URL by the token", "", sign("user-1", NOW_S + 60, TOKEN), 401],
  ["a signed URL with another user", "", good.replace("user-1", "user-2"), 401],
  ["a signed URL with another time", "", good.replace(String(NOW_S + 60), String(NOW_S + 61)), 401],
  ["a signed URL with a padded signature", "", `${good}%3D`, 401],
  ["a signed URL without a time", "", good.replace(/exp=\d+&/, ""), 401],
  ["a signed URL whose time is no number", "", sign("user-1", "Infinity"), 401],
  ["a signed URL whose time is hexadecimal", "", sign("user-1", "0xffffffffff"), 401],
])("%s is answered %i", async (...[, authorization, query, status]) => {
  const headers = authorization === "" ? {} : { authorization };
  const response = await app().request(`/x?${query}`, { headers });
  expect(response.status).toBe(status);
  if (status === 200) return;
  expect(await response.json()).toEqual({ error: "Unauthorized", code: "unauthorized" });
});

test.each([
  ["token", undefined, undefined],
  ["token", "", undefined],
  ["signed", undefined, undefined],
  ["signed", undefined, ""],
])("with no %s set (%p, %p) nothing is accepted", async (...[, token, signingSecret]) => {
  for (const shown of ["undefined", "null", "", " ", "false"]) {
    const signed = createHmac("sha256", shown === "" ? "x" : shown)
      .update(`user-1.${NOW_S + 60}`)
      .digest("base64url");
    for (const query of [
      `token=${shown}`,
      `userId=user-1&exp=${NOW_S + 60}&sig=${signed}`,
      "sig=",
    ]) {
      const response = await app({ token, signingSecret }).request(`/x?${query}`, {
        headers: { authorization: `Bearer ${shown}` },
      });
      expect(response.status).toBe(401);
    }
  }
});

test("a bearer of undefined is refused even where that is the token", async () => {
  const headers = { authorization: "Bearer undefined" };
  expect((await app({ token: "undefined" }).request("/x", { headers })).status).toBe(401);
});

test("who fails too often is told to wait, the owner and others are not", async () => {
  const guarded = app({ failures: { limit: 5, windowMs: 30_000 } });
  const send = (token: string, peer: string, forwarded?: string) =>
    guarded.request(
      `/x?token=${token}`,
      forwarded === undefined ? {} : { headers: { "x-forwarded-for": forwarded } },
      { peer },
    );
  for (let i = 0; i < 5; i += 1) expect((await send(`guess-${i}`, "203.0.113.7")).status).toBe(401);
  const refused = await send("guess", "203.0.113.7");
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "30"]);
  expect(await refused.json()).toMatchObject({ code: "too_many_attempts" });
  // An address of its own choosing does not help.
  expect((await send("guess", "203.0.113.7", "198.51.100.1")).status).toBe(429);
  expect((await send("guess", "203.0.113.8")).status).toBe(401);
  expect((await send("guess", "127.0.0.1", "203.0.113.9")).status).toBe(401);
  expect((await send(TOKEN, "203.0.113.7")).status).toBe(200);
});

test("requests without any credential are not counted as attempts", async () => {
  const guarded = app({ failures: { limit: 1, windowMs: 30_000 } });
  for (let i = 0; i < 5; i += 1) expect((await guarded.request("/x")).status).toBe(401);
});
