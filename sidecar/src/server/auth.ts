import { createHash, createHmac, timingSafeEqual } from "node:crypto";

import type { Context, MiddlewareHandler } from "hono";

import type { Clock } from "../platform/clock.ts";
import type { AppEnv } from "./app-env.ts";
import { clientAddress } from "./client-address.ts";
import { FailureLimit } from "./failure-limit.ts";

export interface AuthOptions {
  /** The gateway token; unset or empty accepts nothing. */
  readonly token: string | undefined;
  /** Key of signed URLs; unset or empty accepts none. */
  readonly signingSecret: string | undefined;
  /** Whose machine this is: signed URLs of others are refused. */
  readonly user: string;
  readonly clock: Clock;
  /** Failures per address; default 20 a minute. */
  readonly failures?: { readonly limit: number; readonly windowMs: number };
}

/** What a request shows of who it is from. */
interface Credentials {
  readonly bearer: string | undefined;
  readonly token: string | undefined;
  readonly signed:
    | { readonly user: string; readonly expires: string; readonly signature: string }
    | undefined;
}

/**
 * Lets a request through that carries `Authorization: Bearer <token>`, `?token=<token>` or a signed URL
 * (`?userId=U&exp=UNIX_SECONDS&sig=S`, S the unpadded base64url of HMAC-SHA256(secret, "U.exp")). Everything else is 401
 * without a reason, or 429 where the address has failed too often. A right credential passes even then: behind a proxy
 * the owner may share an address with whoever guesses. Source: files-api.md.
 */
export function createAuth(options: AuthOptions): MiddlewareHandler<AppEnv> {
  const failures = new FailureLimit({ clock: options.clock, ...options.failures });
  return async (c, next) => {
    const shown = credentialsOf(c);
    if (accepts(shown, options)) return next();
    const requestId = c.get("requestId");
    if (shown.bearer !== undefined || shown.token !== undefined || shown.signed !== undefined) {
      const waitMs = failures.add(clientAddress(c.env?.peer, c.req.header("x-forwarded-for")));
      if (waitMs !== undefined) {
        c.header("Retry-After", String(Math.ceil(waitMs / 1_000)));
        const error = "Too many failed attempts, wait before the next";
        return c.json({ error, code: "too_many_attempts", requestId }, 429);
      }
    }
    c.header("WWW-Authenticate", "Bearer");
    return c.json({ error: "Unauthorized", code: "unauthorized", requestId }, 401);
  };
}

function credentialsOf(c: Context<AppEnv>): Credentials {
  const { token, userId, exp, sig } = c.req.query();
  return {
    bearer: /^Bearer +(.*)$/i.exec(c.req.header("authorization") ?? "")?.[1],
    token,
    signed:
      userId !== undefined && exp !== undefined && sig !== undefined
        ? { user: userId, expires: exp, signature: sig }
        : undefined,
  };
}

function accepts({ bearer, token, signed }: Credentials, options: AuthOptions): boolean {
  return (
    isToken(bearer, options.token) ||
    isToken(token, options.token) ||
    (signed !== undefined && isSigned(signed, options))
  );
}

/** `undefined` and `null` are what broken clients send for a token they do not have. */
function isToken(shown: string | undefined, token: string | undefined): boolean {
  if (shown === undefined || shown === "undefined" || shown === "null") return false;
  return token !== undefined && token !== "" && isSame(shown, token);
}

function isSigned(signed: NonNullable<Credentials["signed"]>, options: AuthOptions): boolean {
  const { signingSecret, user, clock } = options;
  if (signingSecret === undefined || signingSecret === "") return false;
  const expected = createHmac("sha256", signingSecret)
    .update(`${signed.user}.${signed.expires}`)
    .digest("base64url");
  const genuine = isSame(signed.signature, expected) && isSame(signed.user, user);
  return (
    genuine && /^\d{1,12}$/.test(signed.expires) && Number(signed.expires) * 1_000 > clock.now()
  );
}

/** Takes the same time whatever differs, the length too. */
function isSame(a: string, b: string): boolean {
  return timingSafeEqual(digest(a), digest(b));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
