import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";

import { parseCredentials } from "../store/credentials-file.ts";
import type { Credentials } from "../store/credentials.ts";
import type { S3Credentials } from "../store/s3-settings.ts";

const MAX_BYTES = 64 * 1024;

/**
 * `PUT /credentials` with `{accessKeyId, secretAccessKey, sessionToken?, expiresAt?}`: what the store is used with from now
 * on, in memory alone. For the root-only socket: whoever gets at this decides where the backup goes.
 */
export function createCredentialsRoutes(credentials: Credentials | undefined): Hono {
  const routes = new Hono();
  routes.put("/credentials", bodyLimit({ maxSize: MAX_BYTES }), async (c) => {
    if (!credentials) {
      const error = "Cannot use the credentials: the store of this machine needs none";
      return c.json({ error, code: "no_credentials" }, 409);
    }
    let given: S3Credentials;
    try {
      given = parseCredentials(await c.req.json().catch(() => undefined));
    } catch (error) {
      return c.json({ error: (error as Error).message, code: "bad_request" }, 400);
    }
    credentials.replace(given);
    const { expiresAt } = credentials;
    return c.json({ accepted: true, ...(expiresAt === undefined ? {} : { expiresAt }) });
  });
  return routes;
}
