import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import type { S3Credentials } from "../../src/store/s3-settings.ts";
import { S3Store } from "../../src/store/s3.ts";
import { StoreError, type StoreErrorKind } from "../../src/store/store.ts";
import {
  scriptedServer,
  type AnswerScript,
  type ScriptedAnswer,
  type ScriptedServer,
  type SeenRequest,
} from "../support/scripted-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";
import { expectKind, noise, sourceOf } from "./contract.ts";

const MIB = 1 << 20;
const SECRETS = {
  accessKeyId: "AKIDEXAMPLE000000001",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
  sessionToken: "FwoGZXIvYXdzEBYaDsession",
};
const bytes = (size: number): Uint8Array => noise(size);

function storeAt(
  server: ScriptedServer,
  options: { readonly idleLimitMs?: number; readonly credentials?: () => S3Credentials } = {},
): S3Store {
  const { credentials = () => SECRETS, ...rest } = options;
  return new S3Store({ bucket: "bucket", endpoint: server.endpoint, credentials, ...rest });
}

/** A server that takes everything. `override` answers some requests otherwise. */
function accepting(override: AnswerScript = () => undefined): AnswerScript {
  return (request, response) => {
    const other = override(request, response);
    if (other) return other;
    if (request.url.includes("uploads")) {
      return xml("InitiateMultipartUploadResult", "<UploadId>up</UploadId>");
    }
    if (request.method === "POST" && request.url.includes("uploadId=")) {
      return xml("CompleteMultipartUploadResult", "<ETag>e</ETag>");
    }
    if (request.url.includes("delete")) return xml("DeleteResult", "");
    if (request.method === "HEAD") return { status: 404 };
    if (request.url.includes("list-type=2")) {
      return xml("ListBucketResult", "<IsTruncated>false</IsTruncated>");
    }
    return { headers: { etag: '"e"' } };
  };
}

function xml(root: string, inner: string): ScriptedAnswer {
  return { headers: { "content-type": "application/xml" }, body: `<${root}>${inner}</${root}>` };
}

function failure(status: number, code?: string, message = "as scripted"): ScriptedAnswer {
  const body = code && `<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  return { status, headers: { "content-type": "application/xml" }, body: body ?? "" };
}

const kindOfRequest = (request: SeenRequest): string => {
  const { method, url } = request;
  if (url.includes("uploads")) return "create";
  if (url.includes("partNumber=")) return "part";
  if (url.includes("uploadId=")) return method === "POST" ? "complete" : "abandon";
  return method;
};

test("S3Store sends what R2 takes: Content-MD5, a length, no other checksum or encoding", async () => {
  await using server = await scriptedServer(accepting());
  const store = storeAt(server);
  await store.put("small", bytes(10));
  await store.put("large", sourceOf([bytes(20 * MIB)]));
  await store.delete(["a", "b"]);

  const withBody = server.requests.filter((request) => request.body.byteLength > 0);
  expect(withBody.map(kindOfRequest).sort()).toEqual(
    ["PUT", "part", "part", "part", "complete", "POST"].sort(),
  );
  for (const request of withBody) {
    expect(request.headers["content-md5"]).toBe(
      createHash("md5").update(request.body).digest("base64"),
    );
    expect(request.headers["content-length"]).toBe(String(request.body.byteLength));
  }
  for (const request of server.requests) {
    for (const name of Object.keys(request.headers)) {
      expect(name).not.toMatch(
        /^(x-amz-checksum|x-amz-sdk-checksum|expect|transfer-encoding|content-encoding)/,
      );
    }
    expect(request.headers.authorization).toContain(
      `Credential=${SECRETS.accessKeyId}/${new Date().toISOString().slice(0, 4)}`,
    );
    expect(request.headers.authorization).toContain("/auto/s3/aws4_request");
    expect(request.headers["x-amz-security-token"]).toBe(SECRETS.sessionToken);
  }
});

test("S3Store sends equal parts, the last one smaller", async () => {
  await using server = await scriptedServer(accepting());
  await storeAt(server).put("large", sourceOf([bytes(20 * MIB + 5)]));
  const parts = server.requests.filter((request) => kindOfRequest(request) === "part");
  expect(parts.map((part) => part.body.byteLength).sort((a, b) => b - a)).toEqual([
    8 * MIB,
    8 * MIB,
    4 * MIB + 5,
  ]);
});

test("S3Store makes one request of a conditional put up to 64 MiB", async () => {
  await using server = await scriptedServer(accepting());
  await storeAt(server).put("k", sourceOf([bytes(20 * MIB)]), { ifAbsent: true });
  expect(server.requests.map(kindOfRequest)).toEqual(["PUT"]);
  expect(server.requests[0]?.headers["if-none-match"]).toBe("*");
});

test("S3Store makes the last request of a larger put conditional", async () => {
  await using server = await scriptedServer(
    accepting((request) =>
      kindOfRequest(request) === "complete" ? failure(412, "PreconditionFailed") : undefined,
    ),
  );
  const body = new Uint8Array(64 * MIB + 1);
  await expectKind(storeAt(server).put("k", body, { ifAbsent: true }), "exists");
  const kinds = server.requests.map(kindOfRequest);
  expect(kinds[0]).toBe("HEAD");
  expect(kinds.filter((kind) => kind === "part")).toHaveLength(9);
  expect(kinds.filter((kind) => kind === "complete")).toHaveLength(1);
  const last = server.requests.find((request) => kindOfRequest(request) === "complete");
  expect(last?.headers["if-none-match"]).toBe("*");
}, 60_000);

test("S3Store does not send a large body for a key that is taken", async () => {
  await using server = await scriptedServer(() => ({
    headers: { "content-length": "5", "last-modified": new Date(0).toUTCString() },
  }));
  const body = new Uint8Array(64 * MIB + 1);
  await expectKind(storeAt(server).put("k", body, { ifAbsent: true }), "exists");
  expect(server.requests.map(kindOfRequest)).toEqual(["HEAD"]);
});

test("S3Store sends a conditional put once, and others again after what may pass", async () => {
  await using server = await scriptedServer(() => failure(500, "InternalError"));
  const store = storeAt(server);
  await expectKind(store.put("k", bytes(5), { ifAbsent: true }), "unavailable");
  expect(server.requests).toHaveLength(1);
  await expectKind(store.put("k", bytes(5)), "unavailable");
  expect(server.requests).toHaveLength(4);
  await expectKind(store.get("k"), "unavailable");
  expect(server.requests).toHaveLength(7);
});

test("S3Store gives an upload up at the first part that fails for good", async () => {
  await using server = await scriptedServer(
    accepting((request) =>
      request.url.includes("partNumber=1&") ? failure(403, "AccessDenied") : undefined,
    ),
  );
  let given = 0;
  const endless = {
    sizeBytes: 800 * MIB,
    async *open() {
      for (; given < 100; given += 1) yield new Uint8Array(8 * MIB);
    },
  };
  await expectKind(storeAt(server).put("k", endless), "denied");
  expect(given).toBeLessThan(10);
  expect(server.requests.map(kindOfRequest)).toContain("abandon");
  expect(server.requests.map(kindOfRequest)).not.toContain("complete");
});

test("S3Store abandons an upload whose source fails on its last chunk", async () => {
  await using server = await scriptedServer(accepting());
  const failing = {
    sizeBytes: 16 * MIB,
    async *open() {
      yield bytes(16 * MIB);
      throw new Error("the hash differs");
    },
  };
  await expect(storeAt(server).put("k", failing)).rejects.toThrow("the hash differs");
  const kinds = server.requests.map(kindOfRequest);
  expect(kinds).not.toContain("complete");
  if (kinds.includes("create")) expect(kinds).toContain("abandon");
});

test.each<[string, ScriptedAnswer, readonly [get: StoreErrorKind, putIfAbsent: StoreErrorKind]]>([
  ["412", failure(412, "PreconditionFailed"), ["unavailable", "exists"]],
  ["409", failure(409, "ConditionalRequestConflict"), ["unavailable", "unavailable"]],
  ["404 for the key", failure(404, "NoSuchKey"), ["missing", "missing"]],
  ["404 for the bucket", failure(404, "NoSuchBucket"), ["missing", "missing"]],
  ["401", failure(401, "Unauthorized"), ["denied", "denied"]],
  ["403", failure(403, "AccessDenied"), ["denied", "denied"]],
  ["403 without words", failure(403), ["denied", "denied"]],
  ["400 for an old token", failure(400, "ExpiredToken"), ["denied", "denied"]],
  ["403 for a wrong clock", failure(403, "RequestTimeTooSkewed"), ["unavailable", "unavailable"]],
  ["429", failure(429, "TooManyRequests"), ["throttled", "throttled"]],
  ["429 without words", failure(429), ["throttled", "throttled"]],
  ["503 to slow down", failure(503, "SlowDown"), ["throttled", "throttled"]],
  ["503", failure(503, "ServiceUnavailable"), ["unavailable", "unavailable"]],
  ["501", failure(501, "NotImplemented"), ["unsupported", "unsupported"]],
  ["500", failure(500, "InternalError"), ["unavailable", "unavailable"]],
  ["400 for a wrong MD5", failure(400, "BadDigest"), ["unavailable", "unavailable"]],
  ["a proxy's page", { status: 502, body: "<html>Bad gateway" }, ["unavailable", "unavailable"]],
])("S3Store tells apart: %s", async (_, answer, [ofGet, ofPut]) => {
  await using server = await scriptedServer(() => answer);
  const store = storeAt(server);
  const get = await expectKind(store.get("some/key"), ofGet);
  const put = await expectKind(store.put("some/key", bytes(5), { ifAbsent: true }), ofPut);
  for (const error of [get, put]) {
    expect(error.message).toMatch(/^Cannot (get|put) "some\/key" in bucket "bucket": /);
    expect(error.cause).toBeInstanceOf(Error);
  }
});

test("S3Store calls a refused connection unavailable", async () => {
  let server: ScriptedServer;
  {
    await using gone = await scriptedServer(() => undefined);
    server = gone;
  }
  await expectKind(storeAt(server).put("k", bytes(5), { ifAbsent: true }), "unavailable");
});

test("S3Store names no credentials in its errors, whatever the server says", async () => {
  const { accessKeyId, secretAccessKey, sessionToken } = SECRETS;
  const leak = `for ${accessKeyId} ${secretAccessKey} ${sessionToken} at http://x/?X-Amz-Signature=abcdef&amp;X-Amz-Date=1`;
  await using server = await scriptedServer(() => failure(403, "SignatureDoesNotMatch", leak));
  const error = await expectKind(storeAt(server).get("k"), "denied");
  const all = `${Bun.inspect(error)} ${JSON.stringify(error)} ${String(error.cause)} ${error.stack}`;
  for (const secret of [accessKeyId, secretAccessKey, sessionToken, "abcdef"]) {
    expect(all).not.toContain(secret);
  }
  expect(all).toContain("SignatureDoesNotMatch");
});

test("S3Store asks for credentials anew, so that they can change while it runs", async () => {
  await using server = await scriptedServer(accepting());
  let current: S3Credentials = { accessKeyId: "FIRST", secretAccessKey: "s" };
  const store = storeAt(server, { credentials: () => current });
  await store.put("a", bytes(1));
  current = { accessKeyId: "SECOND", secretAccessKey: "t", sessionToken: "token-2", expiresAt: 1 };
  await store.put("a", bytes(1), { ifAbsent: true });
  await store.list("");
  current = { accessKeyId: "THIRD", secretAccessKey: "u" };
  await store.list("");
  const signed = server.requests.map((request) => [
    /Credential=(\w+)/.exec(request.headers.authorization ?? "")?.[1],
    request.headers["x-amz-security-token"],
  ]);
  expect(signed).toEqual([
    ["FIRST", undefined],
    ["SECOND", "token-2"],
    ["SECOND", "token-2"],
    ["THIRD", undefined],
  ]);
});

test("S3Store sends nothing without credentials", async () => {
  await using server = await scriptedServer(accepting());
  const refusal = new StoreError("denied", "Cannot renew the credentials: revoked");
  let thrown: Error = new Error("the control plane is down");
  const store = storeAt(server, {
    credentials: () => {
      throw thrown;
    },
  });
  await expectKind(store.get("k"), "unavailable");
  thrown = refusal;
  await expect(store.get("k")).rejects.toBe(refusal);
  await expect(store.put("k", bytes(9 * MIB))).rejects.toBe(refusal);
  expect(server.requests).toHaveLength(0);
});

test("S3Store gives up a connection on which nothing moves", async () => {
  await using server = await scriptedServer((request, response) => {
    if (request.method !== "GET") return undefined;
    response.writeHead(200, { "content-length": "100" });
    response.write("half");
    return undefined;
  });
  const store = storeAt(server, { idleLimitMs: 300 });
  await expectKind(store.put("k", bytes(5), { ifAbsent: true }), "unavailable");
  await expectKind(store.get("k"), "unavailable");
  const reader = (await store.stream("k")).getReader();
  expect((await reader.read()).value?.byteLength).toBe(4);
  await expectKind(reader.read(), "unavailable");
});

test("S3Store calls an answer that breaks off unavailable", async () => {
  await using server = await scriptedServer((_, response) => {
    response.writeHead(200, { "content-length": "100" });
    response.write("half", () => response.destroy());
    return undefined;
  });
  await expectKind(storeAt(server).get("k"), "unavailable");
});

test("S3Store does not take the whole object for the range that it asked for", async () => {
  await using server = await scriptedServer(() => ({ body: "the whole object" }));
  await expectKind(storeAt(server).get("k", { range: { start: 4, end: 6 } }), "unavailable");
});

test("S3Store ends a request in flight with its signal", async () => {
  await using server = await scriptedServer((request, response) => {
    if (request.method === "GET" && !request.url.includes("list-type")) {
      response.writeHead(200, { "content-length": "100" });
      response.write("half");
    }
    return undefined;
  });
  const store = storeAt(server);
  const calls: [string, (signal: AbortSignal) => Promise<unknown>][] = [
    ["put", (signal) => store.put("k", bytes(5), { signal })],
    ["conditional put", (signal) => store.put("k", bytes(5), { signal, ifAbsent: true })],
    ["large put", (signal) => store.put("k", bytes(9 * MIB), { signal })],
    ["get", (signal) => store.get("k", { signal })],
    ["head", (signal) => store.head("k", { signal })],
    ["list", (signal) => store.list("", { signal })],
    ["delete", (signal) => store.delete(["k"], { signal })],
  ];
  for (const [name, call] of calls) {
    const before = server.requests.length;
    const abort = new AbortController();
    const reason = new Error(name);
    const ended = call(abort.signal).then(
      () => "done",
      (error: unknown) => error,
    );
    await until(() => server.requests.length > before, `the request of ${name}`);
    abort.abort(reason);
    expect(await ended).toBe(reason);
  }
});

test("S3Store heeds a signal while it pauses between two attempts", async () => {
  await using server = await scriptedServer((request, response) => {
    if (kindOfRequest(request) === "abandon") return {};
    if (kindOfRequest(request) === "create") return accepting()(request, response);
    return { ...failure(503, "SlowDown"), headers: { "retry-after": "15" } };
  });
  const store = storeAt(server);
  for (const call of [
    (signal: AbortSignal) => store.get("k", { signal }),
    (signal: AbortSignal) => store.put("k", bytes(9 * MIB), { signal }),
  ]) {
    const before = server.requests.length;
    const abort = new AbortController();
    const startedAt = performance.now();
    const ended = call(abort.signal).catch((error: unknown) => error);
    await until(() => server.requests.length > before, "the first attempt");
    abort.abort(new Error("enough"));
    expect(await ended).toBe(abort.signal.reason);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  }
});

test("S3Store takes the time of a list from the server", async () => {
  const serverNow = Date.now() - 40 * 86_400_000;
  await using server = await scriptedServer(() => ({
    ...xml("ListBucketResult", "<IsTruncated>false</IsTruncated>"),
    headers: { date: new Date(serverNow).toUTCString() },
  }));
  const { nowMs } = await storeAt(server).list("");
  expect(Math.abs(nowMs - serverNow)).toBeLessThan(5_000);
});

test("S3Store signs with the server's time after an answer about a wrong clock", async () => {
  const serverNow = Date.now() + 3 * 3_600_000;
  const stamp = (request: SeenRequest): number => {
    const [, date = "", time = ""] =
      /(\d{8})T(\d{6})Z/.exec(String(request.headers["x-amz-date"])) ?? [];
    return Date.parse(
      `${date.replace(/(....)(..)(..)/, "$1-$2-$3")}T${time.replace(/(..)(..)(..)/, "$1:$2:$3")}Z`,
    );
  };
  await using server = await scriptedServer((request) => ({
    ...(Math.abs(stamp(request) - serverNow) > 900_000
      ? failure(403, "RequestTimeTooSkewed")
      : { status: 200 }),
    headers: { date: new Date(serverNow).toUTCString(), "content-type": "application/xml" },
  }));
  const store = storeAt(server);
  await expectKind(store.put("k", bytes(5), { ifAbsent: true }), "unavailable");
  await store.put("k", bytes(5), { ifAbsent: true });
  expect(server.requests).toHaveLength(2);
});

test("S3Store removes 1,000 objects per request and tells which could not be", async () => {
  let answer = xml("DeleteResult", "");
  await using server = await scriptedServer(() => answer);
  const store = storeAt(server);
  await store.delete(Array.from({ length: 2_030 }, (_, number) => `k/${number}`));
  expect(
    server.requests.map(
      (request) => new TextDecoder().decode(request.body).split("<Key>").length - 1,
    ),
  ).toEqual([1_000, 1_000, 30]);

  const error = (key: string, code: string): string =>
    `<Error><Key>${key}</Key><Code>${code}</Code><Message>no</Message></Error>`;
  answer = xml("DeleteResult", error("k/1", "AccessDenied") + error("k/2", "InternalError"));
  const denied = await expectKind(store.delete(["k/1", "k/2"]), "denied");
  expect(denied.message).toBe(
    'Cannot delete "k/1" and 1 others in bucket "bucket": the store answers AccessDenied',
  );
  answer = xml("DeleteResult", error("k/1", "SlowDown"));
  await expectKind(store.delete(["k/1"]), "throttled");
  answer = xml("DeleteResult", error("k/1", "NoSuchKey"));
  await store.delete(["k/1"]);
});

test("S3Store looks at no AWS_ variable, no ~/.aws file and no metadata server", async () => {
  await using server = await scriptedServer(accepting());
  await using trap = await scriptedServer(() => ({ body: "{}" }));
  using home = tempDir();
  const aws = join(home.path, ".aws");
  mkdirSync(aws);
  // Whoever opens a FIFO without a writer waits for ever.
  Bun.spawnSync(["mkfifo", join(aws, "config"), join(aws, "credentials")]);
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "../fixtures/s3-put.ts")], {
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: home.path,
      STORE_ENDPOINT: server.endpoint,
      AWS_ACCESS_KEY_ID: "POISON",
      AWS_SECRET_ACCESS_KEY: "POISON",
      AWS_SESSION_TOKEN: "POISON",
      AWS_PROFILE: "poison",
      AWS_REGION: "poison-1",
      AWS_DEFAULT_REGION: "poison-1",
      AWS_ENDPOINT_URL: trap.endpoint,
      AWS_ENDPOINT_URL_S3: trap.endpoint,
      AWS_CONFIG_FILE: join(aws, "config"),
      AWS_SHARED_CREDENTIALS_FILE: join(aws, "credentials"),
      AWS_SDK_LOAD_CONFIG: "1",
      AWS_MAX_ATTEMPTS: "poison",
      AWS_RETRY_MODE: "poison",
      AWS_DEFAULTS_MODE: "auto",
      AWS_USE_FIPS_ENDPOINT: "poison",
      AWS_USE_DUALSTACK_ENDPOINT: "poison",
      AWS_REQUEST_CHECKSUM_CALCULATION: "WHEN_SUPPORTED",
      AWS_RESPONSE_CHECKSUM_VALIDATION: "WHEN_SUPPORTED",
      AWS_S3_DISABLE_EXPRESS_SESSION_AUTH: "poison",
      AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS: "poison",
      AWS_S3_USE_ARN_REGION: "poison",
      AWS_AUTH_SCHEME_PREFERENCE: "poison",
      AWS_SIGV4A_SIGNING_REGION_SET: "poison",
      AWS_SDK_UA_APP_ID: "poison",
      AWS_EC2_METADATA_SERVICE_ENDPOINT: trap.endpoint,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: trap.endpoint,
      AWS_WEB_IDENTITY_TOKEN_FILE: join(aws, "credentials"),
      AWS_ROLE_ARN: "arn:aws:iam::1:role/poison",
      AWS_CA_BUNDLE: "/poison",
    },
    stdout: "pipe",
    stderr: "pipe",
    timeout: 25_000,
  });
  const said = `${await new Response(child.stdout).text()}${await new Response(child.stderr).text()}`;
  expect([await child.exited, said]).toEqual([0, "done\n"]);
  expect(trap.requests).toHaveLength(0);
  const kinds = server.requests.map(kindOfRequest);
  expect(kinds).toEqual(
    expect.arrayContaining(["PUT", "HEAD", "GET", "POST", "create", "complete"]),
  );
  for (const request of server.requests) {
    expect(JSON.stringify(request.headers).toLowerCase()).not.toContain("poison");
    expect(request.headers.authorization).toContain("Credential=EXPLICIT/");
    expect(JSON.stringify(request.headers)).not.toContain("x-amz-checksum");
  }
}, 60_000);

test.each([
  [failure(503, "SlowDown"), "the store answers 503 SlowDown"],
  [failure(403), "the store answers 403"],
  [failure(412, "PreconditionFailed"), "it exists already"],
])("S3Store says what it found: %j", async (answer, found) => {
  await using server = await scriptedServer(() => answer);
  const put = storeAt(server).put("a/b", bytes(1), { ifAbsent: true });
  await expect(put).rejects.toThrow(`Cannot put "a/b" in bucket "bucket": ${found}`);
});

test("S3Store says that a connection was refused", async () => {
  const store = new S3Store({
    bucket: "bucket",
    endpoint: "http://127.0.0.1:1",
    credentials: () => SECRETS,
  });
  await expect(store.get("a/b")).rejects.toThrow(
    'Cannot get "a/b" in bucket "bucket": ECONNREFUSED',
  );
});

test("S3Store asks once more where the credentials were renewed by the time they were refused", async () => {
  const renewed = { accessKeyId: "AKIDRENEWED00000002", secretAccessKey: "renewed-secret-key" };
  const uses = (request: SeenRequest): string =>
    String(request.headers.authorization).includes(renewed.accessKeyId) ? "new" : "old";
  await using server = await scriptedServer(
    accepting((request) => (uses(request) === "old" ? failure(403, "ExpiredToken") : undefined)),
  );
  let current: S3Credentials = SECRETS;
  const refusals: unknown[] = [];
  let isThere = false;
  const store = new S3Store({
    bucket: "bucket",
    endpoint: server.endpoint,
    credentials: () => current,
    onDenied: (used) => {
      refusals.push(used);
      if (isThere) current = renewed;
      return current !== used;
    },
  });
  await expectKind(store.put("k", bytes(10), { ifAbsent: true }), "denied");
  isThere = true;
  await store.put("k", bytes(10), { ifAbsent: true });
  expect(refusals).toEqual([SECRETS, SECRETS]);
  expect(server.requests.map(uses)).toEqual(["old", "old", "new"]);
});
