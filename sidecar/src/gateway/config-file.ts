import { closeSync, fstatSync, readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

import type { Clock } from "../platform/clock.ts";
import { writeFileAtomic } from "../volume/atomic.ts";
import type { Dir, Owner } from "../volume/dir.ts";
import { Root } from "../volume/root.ts";
import { isVolumeError } from "../volume/volume-error.ts";
import {
  mergeConfig,
  parseConfigText,
  type JsonObject,
  type ManagedConfig,
} from "./config-merge.ts";

const FOLDER = "openclaw";
const NAME = "openclaw.json";
const LAST_GOOD = ".sidecar/last-good";
/** OpenClaw's own copy, made when a config is changed through it: newer than ours where that happened since. */
const OPENCLAW_LAST_GOOD = `${NAME}.last-good`;
/** A config is some kilobytes; a longer file is not one. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Configs that did not work are kept for people, not for ever. */
const MAX_BROKEN = 5;

/** Something that the user should hear of. Fits the control plane's events. */
export interface ConfigEvent {
  readonly type: "config_repaired";
  readonly details: {
    /** What was wrong, without quoting the file. */
    readonly reason: string;
    /** Where the config that did not work is now, below the volume; absent where there was none. */
    readonly keptAs?: string;
    /** What the gateway gets in its place. */
    readonly replacedBy: "last_good" | "defaults";
  };
}

export interface ConfigFileOptions {
  /** Absolute path of the volume. */
  readonly dataDir: string;
  readonly managed: ManagedConfig;
  /** Who the file belongs to; undefined leaves it to the process. */
  readonly owner?: Owner | undefined;
  readonly clock: Clock;
}

/**
 * OpenClaw's config on the volume: brought up to date before each start, with the last one that worked at hand. The
 * folder is the agent's, so every step goes through descriptors and no link is followed.
 */
export class ConfigFile {
  readonly #options: ConfigFileOptions;
  /** What the gateway starts with, until it has been found to work. */
  #prepared: JsonObject | undefined;

  constructor(options: ConfigFileOptions) {
    this.#options = options;
  }

  /** Merges what the machine knows into the file, which is written only where something changes. Resolves to what had to be repaired. */
  async prepare(): Promise<ConfigEvent | undefined> {
    using root = new Root(this.#options.dataDir);
    using dir = root.dir(FOLDER, { links: "refuse" });
    const good = findLastGood(root, dir);
    const found = good ? orClobbered(read(dir, NAME)) : read(dir, NAME);
    if (found.kind === "config") {
      await this.#write(dir, { from: found.config, to: this.#merge(found.config) });
      return undefined;
    }
    if (found.kind === "missing" && !good) {
      await this.#write(dir, { to: this.#merge({}) });
      return undefined;
    }
    const reason = found.kind === "missing" ? "there was no config" : found.reason;
    const keptAs = found.kind === "missing" ? undefined : this.#putAside(dir);
    await this.#write(dir, { to: this.#merge(good ?? {}) });
    return repaired(reason, { keptAs, replacedBy: good ? "last_good" : "defaults" });
  }

  /** The gateway runs with what was prepared: keeps that as the last good config. */
  async remember(): Promise<void> {
    const config = this.#prepared;
    if (!config) return;
    using root = new Root(this.#options.dataDir);
    const create = { mode: 0o700 };
    using place = root.place(`${LAST_GOOD}/${NAME}`, { links: "refuse", create });
    const kept = read(place.dir, place.name);
    if (kept.kind === "config" && isDeepStrictEqual(kept.config, config)) return;
    await writeFileAtomic(place, serialize(config), { mode: 0o600 });
  }

  /**
   * For a config that OpenClaw refuses: puts it aside and the last good one in its place. Resolves to undefined where
   * there is none, or none that differs.
   */
  async restoreLastGood(): Promise<ConfigEvent | undefined> {
    using root = new Root(this.#options.dataDir);
    using dir = root.dir(FOLDER, { links: "refuse" });
    const good = findLastGood(root, dir, this.#prepared);
    if (!good) return undefined;
    const keptAs = this.#putAside(dir);
    await this.#write(dir, { to: this.#merge(good) });
    return repaired("OpenClaw does not accept it", { keptAs, replacedBy: "last_good" });
  }

  #merge(config: JsonObject): JsonObject {
    return mergeConfig(config, this.#options.managed);
  }

  async #write(
    dir: Dir,
    change: { readonly from?: JsonObject; readonly to: JsonObject },
  ): Promise<void> {
    const { from, to } = change;
    this.#prepared = to;
    // The user's own comments and order stay where nothing has to change.
    if (from !== undefined && isDeepStrictEqual(from, to)) return;
    const { owner } = this.#options;
    await writeFileAtomic({ dir, name: NAME }, serialize(to), { mode: 0o600, owner, keep: false });
  }

  /** Renames what has the config's name, whatever it is, and returns its path; undefined where nothing has. */
  #putAside(dir: Dir): string | undefined {
    const time = new Date(this.#options.clock.now()).toISOString().replace(/[:.]/g, "-");
    const name = `${NAME}.broken-${time}`;
    try {
      dir.rename(NAME, dir, name);
    } catch (error) {
      if (isVolumeError(error, "missing")) return undefined;
      throw error;
    }
    dir.sync();
    forgetOldBroken(dir);
    return dir.pathOf(name);
  }
}

type Found =
  | { readonly kind: "config"; readonly config: JsonObject; readonly modifiedNs: bigint }
  | { readonly kind: "missing" }
  | { readonly kind: "broken"; readonly reason: string };

function read(dir: Dir, name: string): Found {
  let fd: number;
  try {
    fd = dir.openFile(name);
  } catch (error) {
    if (isVolumeError(error, "missing")) return { kind: "missing" };
    if (isVolumeError(error, "outside_root", "is_directory", "special")) {
      return { kind: "broken", reason: "it is no regular file" };
    }
    throw error;
  }
  try {
    const { size, mtimeNs } = fstatSync(fd, { bigint: true });
    if (size > MAX_BYTES) return { kind: "broken", reason: `it is ${size} bytes long` };
    return {
      kind: "config",
      config: parseConfigText(readFileSync(fd, "utf8")),
      modifiedNs: mtimeNs,
    };
  } catch (error) {
    if (isVolumeError(error) || (error as NodeJS.ErrnoException).code !== undefined) throw error;
    return { kind: "broken", reason: (error as Error).message };
  } finally {
    closeSync(fd);
  }
}

/**
 * Every config that was ever prepared says its `gateway.mode`. One that no longer does has lost more than that; merged,
 * it would start without the user's channels, which is why OpenClaw refuses it too.
 */
function orClobbered(found: Found): Found {
  if (found.kind !== "config") return found;
  const { gateway } = found.config;
  const hasMode = typeof gateway === "object" && gateway !== null && Object.hasOwn(gateway, "mode");
  return hasMode ? found : { kind: "broken", reason: "it has lost its gateway.mode" };
}

/** The newest of the copies that parse and differ from `other`. */
function findLastGood(root: Root, dir: Dir, other?: JsonObject): JsonObject | undefined {
  const candidates = [read(dir, OPENCLAW_LAST_GOOD), readOurs(root)]
    .filter((found) => found.kind === "config")
    .filter(({ config }) => Object.hasOwn(config, "gateway") && !isDeepStrictEqual(config, other))
    .sort((a, b) => (a.modifiedNs < b.modifiedNs ? 1 : -1));
  return candidates[0]?.config;
}

function readOurs(root: Root): Found {
  try {
    using folder = root.dir(LAST_GOOD, { links: "refuse" });
    return read(folder, NAME);
  } catch (error) {
    if (isVolumeError(error, "missing")) return { kind: "missing" };
    throw error;
  }
}

function forgetOldBroken(dir: Dir): void {
  const broken = dir.names().filter((name) => name.startsWith(`${NAME}.broken-`));
  // Their names end in the time, so the oldest come first.
  for (const name of broken.sort().slice(0, -MAX_BROKEN)) {
    try {
      dir.unlink(name);
    } catch (error) {
      // A folder of that name is the agent's own doing.
      if (!isVolumeError(error, "is_directory", "missing", "denied")) throw error;
    }
  }
}

function repaired(
  reason: string,
  rest: { keptAs: string | undefined; replacedBy: "last_good" | "defaults" },
): ConfigEvent {
  const { keptAs, replacedBy } = rest;
  return {
    type: "config_repaired",
    details: { reason, ...(keptAs === undefined ? {} : { keptAs }), replacedBy },
  };
}

function serialize(config: JsonObject): Uint8Array {
  return Buffer.from(`${JSON.stringify(config, null, 2)}\n`);
}
