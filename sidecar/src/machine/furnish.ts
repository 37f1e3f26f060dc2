import { resolve } from "node:path";

import type { Config, Environment } from "../config.ts";
import { prepareFolders } from "../gateway/folders.ts";
import { copyTemplate } from "../gateway/workspace.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { Owner } from "../volume/dir.ts";

/** The image and a checkout keep it in the same place beside the sources. */
const TEMPLATE = resolve(import.meta.dir, "../../../container/default-workspace");

export interface FurnishOptions {
  readonly config: Config;
  readonly environment: Environment;
  /** Whom the files are for. */
  readonly owner: Owner | undefined;
  /** The files came from the backup, or were there: nothing is added to them. */
  readonly restored: boolean;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Puts a volume's folders, and a new volume's first files, in place. Throws VolumeError. */
export async function furnish(options: FurnishOptions): Promise<void> {
  const { config, environment, owner, restored, clock, log, signal } = options;
  await prepareFolders(config.dataDir, { owner, clock, signal });
  const { written, problems } = await copyTemplate({
    dataDir: config.dataDir,
    templateDir: TEMPLATE,
    env: environment,
    owner,
    restored,
  });
  for (const problem of problems) log.warn({}, problem);
  if (written.length > 0) log.info({ files: written.length }, "The workspace got its first files");
}
