import { Hono, type Context, type MiddlewareHandler } from "hono";

import type { Clock } from "../platform/clock.ts";
import type { Owner } from "../volume/dir.ts";
import { moveEntry } from "../volume/move.ts";
import { removeTree } from "../volume/remove-tree.ts";
import type { Root } from "../volume/root.ts";
import { VolumeError, isVolumeError } from "../volume/volume-error.ts";
import { bodyChunks, checkDeclaredLength, jsonBody, type Incoming } from "./body.ts";
import { errorAnswer } from "./error-answer.ts";
import { FilesError } from "./files-error.ts";
import { heldJson } from "./held-json.ts";
import { listFolder } from "./listing.ts";
import { MemoryBudget, type MemoryShare } from "./memory-budget.ts";
import { resolvePath, type RequestPath } from "./paths.ts";
import { moveBody, writeBody } from "./schema.ts";
import { Downloads, readWhole, storeFile } from "./transfer.ts";

const MB = 1024 * 1024;
/** JSON may spell one byte of text with six characters, and needs some around it. */
const JSON_FACTOR = 6;
const JSON_FRAME_BYTES = 1_024;
const MOVE_BODY_BYTES = 64 * 1024;
/** Two of the longest bodies of /write, as they come. */
const HELD_BYTES = 128 * MB;

interface FilesLimits {
  /** Largest file that /read answers; default 10 MB. */
  readonly readBytes: number;
  /** Longest text that /write takes; default 10 MB. */
  readonly writeBytes: number;
  /** Largest upload; default 100 MB. */
  readonly uploadBytes: number;
  /** Most entries of a folder that /list answers; default 50,000. */
  readonly listEntries: number | undefined;
  /** What all requests together may hold in memory of what they are sent and answer; default 128 MB. */
  readonly heldBytes: number;
}

/** Why nothing may be written now. */
export interface Refusal {
  /** 507 alone lets deletions and moves through: they are how space comes back. */
  readonly status: 403 | 503 | 507;
  readonly error: string;
  readonly code: string;
}

export interface FilesOptions {
  readonly root: Root;
  readonly clock: Clock;
  /** The folder below the root that relative paths start from; default "workspace". */
  readonly workspace?: string;
  /** Who owns what is created. */
  readonly owner?: Owner | undefined;
  readonly limits?: Partial<FilesLimits>;
  /** Asked before each request that changes something. */
  readonly writable?: () => Refusal | undefined;
}

/** The routes of /files, without auth: whoever mounts them checks it. Source: files-api.md. */
export function createFilesRoutes(options: FilesOptions): Hono {
  const { root, clock, workspace = "workspace", owner, writable } = options;
  const { readBytes, writeBytes, uploadBytes, listEntries, heldBytes } = {
    readBytes: 10 * MB,
    writeBytes: 10 * MB,
    uploadBytes: 100 * MB,
    listEntries: undefined,
    heldBytes: HELD_BYTES,
    ...options.limits,
  };
  const downloads = new Downloads(root, clock);
  const memory = new MemoryBudget(heldBytes);
  /** For answers that give their share back when they were sent. */
  const holding = async (answer: (share: MemoryShare) => Promise<Response>): Promise<Response> => {
    const share = memory.open();
    try {
      return await answer(share);
    } catch (error) {
      share[Symbol.dispose]();
      throw error;
    }
  };
  const at = (spelled: string): RequestPath => resolvePath(root, { spelled, workspace });
  const queried = (c: Context): RequestPath => at(pathParameter(c));
  const writes = refuseUnless(writable, { evenWhenFull: false });
  const frees = refuseUnless(writable, { evenWhenFull: true });
  const routes = new Hono();
  routes.onError(errorAnswer);

  routes.get("/list", async (c) => {
    const folder = at(c.req.query("path") === undefined ? "" : pathParameter(c));
    return holding(async (share) => {
      const { signal } = c.req.raw;
      const files = await listFolder(root, folder, { signal, share, maxEntries: listEntries });
      return heldJson(c, { files }, share);
    });
  });

  routes.get("/read", (c) =>
    holding(async (share) => {
      const answer = await readWhole(root, queried(c).path, { limitBytes: readBytes, share });
      return heldJson(c, answer, share);
    }),
  );

  routes.get("/download", (c) => downloads.answer(queried(c), c.req.method));

  routes.post("/write", writes, async (c) => {
    const { path, spelled } = queried(c);
    using share = memory.open();
    const body = incoming(c, writeBytes * JSON_FACTOR + JSON_FRAME_BYTES);
    const { content } = await jsonBody({ ...body, share }, writeBody);
    const bytes = Buffer.from(content);
    const size = await storeFile(root, { path, content: bytes }, { owner, maxBytes: writeBytes });
    return c.json({ success: true, path: spelled, size });
  });

  routes.post("/upload", writes, async (c) => {
    const { path, spelled } = queried(c);
    const body = incoming(c, uploadBytes);
    checkDeclaredLength(body);
    const content = bodyChunks(body);
    const size = await storeFile(root, { path, content }, { owner, maxBytes: uploadBytes });
    return c.json({ success: true, path: spelled, size });
  });

  routes.post("/mkdir", writes, async (c) => {
    const { path, spelled } = queried(c);
    await makeFolder(root, path, owner);
    return c.json({ success: true, path: spelled });
  });

  routes.delete("/delete", frees, async (c) => {
    using place = root.place(queried(c).path);
    root.checkFixed(place.path);
    await removeTree(place);
    return c.json({ success: true });
  });

  routes.post("/move", frees, async (c) => {
    using share = memory.open();
    const { from, to } = await jsonBody({ ...incoming(c, MOVE_BODY_BYTES), share }, moveBody);
    await moveEntry(root, { from: at(from).path, to: at(to).path }, { owner });
    return c.json({ success: true });
  });

  return routes;
}

/** The query's `path`. Throws `bad_request` without one, `bad_name` where it is not UTF-8. */
function pathParameter(c: Context): string {
  const path = c.req.query("path");
  if (path === undefined || path === "") {
    throw new FilesError("bad_request", 'Cannot serve the request: it has no "path"');
  }
  // hono keeps an escape that is no UTF-8 as it is, URL replaces it: only a sound one reads the same.
  if (new URL(c.req.url).searchParams.get("path") !== path) {
    throw new VolumeError("bad_name", "Cannot use the path: it is not valid UTF-8");
  }
  return path;
}

/** Whoever serves the routes may give a `touch` with each request, which keeps a connection open that is still sending. */
function incoming(c: Context, limitBytes: number): Incoming {
  const { touch } = (c.env ?? {}) as Pick<Incoming, "touch">;
  return { request: c.req.raw, limitBytes, touch };
}

function refuseUnless(
  writable: FilesOptions["writable"],
  { evenWhenFull }: { readonly evenWhenFull: boolean },
): MiddlewareHandler {
  return async (c, next) => {
    const refusal = writable?.();
    if (!refusal || (evenWhenFull && refusal.status === 507)) return next();
    const { status, error, code } = refusal;
    return c.json({ error, code, requestId: c.get("requestId") }, status);
  };
}

async function makeFolder(root: Root, path: string, owner: Owner | undefined): Promise<void> {
  try {
    using dir = root.dir(path, { create: { owner } });
    await dir.flush();
  } catch (error) {
    if (!isVolumeError(error, "not_directory")) throw error;
    throw new VolumeError("exists", `Cannot create "${path}": a file is there`, { cause: error });
  }
}
