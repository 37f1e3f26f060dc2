import { expect, test } from "bun:test";

import { createCredentialsRoutes } from "../../src/machine/credentials-routes.ts";
import { Credentials } from "../../src/store/credentials.ts";
import { capturedLog } from "../support/captured-log.ts";
import { ManualClock } from "../support/manual-clock.ts";

const GIVEN = { accessKeyId: "AKID-GIVEN-0001", secretAccessKey: "given-secret-0001" };

function routes() {
  const credentials = new Credentials({ clock: new ManualClock(), log: capturedLog() });
  const app = createCredentialsRoutes(credentials);
  const put = (body: string): Response | Promise<Response> =>
    app.request("/credentials", { method: "PUT", body });
  return { credentials, put };
}

test("PUT /credentials replaces the store's credentials and repeats none of them", async () => {
  const { credentials, put } = routes();
  const answer = await put(JSON.stringify({ ...GIVEN, expiresAt: "2026-11-25T00:00:00Z" }));
  expect(answer.status).toBe(200);
  expect(await answer.json()).toEqual({ accepted: true, expiresAt: "2026-11-25T00:00:00.000Z" });
  expect(credentials.provide()).toMatchObject(GIVEN);
});

test.each([
  ["half an object", "{", 400],
  ["nothing", "", 400],
  ["a secret that is no text", JSON.stringify({ ...GIVEN, secretAccessKey: 5 }), 400],
  ["far too much", JSON.stringify({ ...GIVEN, more: "x".repeat(100_000) }), 413],
])("PUT /credentials refuses %s", async (_, body, status) => {
  const { credentials, put } = routes();
  credentials.replace({ accessKeyId: "AKID-BEFORE-01", secretAccessKey: "before-secret" });
  const answer = await put(body);
  expect(answer.status).toBe(status);
  expect(await answer.text()).not.toContain(GIVEN.accessKeyId);
  expect(credentials.provide().accessKeyId).toBe("AKID-BEFORE-01");
});

test("PUT /credentials says where there is nothing that needs them", async () => {
  const answer = await createCredentialsRoutes(undefined).request("/credentials", {
    method: "PUT",
    body: JSON.stringify(GIVEN),
  });
  expect(answer.status).toBe(409);
});
