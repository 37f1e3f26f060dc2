import { closeSync, fsyncSync, readFileSync, readlinkSync, writeSync } from "node:fs";

import { z } from "zod";

import type { Dir } from "../volume/dir.ts";
import { isVolumeError } from "../volume/volume-error.ts";

const NAME = "children.json";
const TEMPORARY = "children.json.new";
const MODE = 0o600;

const processSchema = z.object({ pid: z.int().min(1), startTicks: z.int().min(0) });

const recordSchema = z.object({
  v: z.literal(1),
  /** Pids mean something only in the boot and the namespace that they were given in. */
  boot: z.string().min(1),
  namespace: z.string(),
  /** Names one life of the sidecar; every child carries it in its environment. */
  run: z.string().min(1),
  sidecar: processSchema,
  children: z.array(processSchema.extend({ name: z.string() })).readonly(),
});

/** Who we are and which children we have, as the next life of the sidecar needs it to end them. */
export type ChildrenRecord = Readonly<z.infer<typeof recordSchema>>;

/** `children.json` in the machine's private folder. */
export class ChildrenFile {
  readonly #dir: Dir;

  /** The folder stays the caller's. */
  constructor(dir: Dir) {
    this.#dir = dir;
  }

  /** What the last life wrote; undefined if it wrote nothing or what is there is damaged. */
  read(): ChildrenRecord | undefined {
    let text: string;
    try {
      const fd = this.#dir.openFile(NAME);
      try {
        text = readFileSync(fd, "utf8");
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      if (isVolumeError(error, "missing")) return undefined;
      throw error;
    }
    try {
      return recordSchema.parse(JSON.parse(text));
    } catch {
      // Written whole or not at all by us; whatever this is, it names nothing that we may end.
      return undefined;
    }
  }

  /** Replaces the file, durably, before it returns. Throws VolumeError. */
  write(record: ChildrenRecord): void {
    try {
      this.#dir.unlink(TEMPORARY);
    } catch (error) {
      if (!isVolumeError(error, "missing")) throw error;
    }
    const fd = this.#dir.create(TEMPORARY, MODE);
    try {
      const bytes = Buffer.from(JSON.stringify(record));
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    this.#dir.rename(TEMPORARY, this.#dir, NAME);
    this.#dir.sync();
  }
}

/** The boot and the pid namespace that we run in. */
export function whereWeRun(): Pick<ChildrenRecord, "boot" | "namespace"> {
  return {
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim(),
    namespace: readlinkSync("/proc/self/ns/pid"),
  };
}
