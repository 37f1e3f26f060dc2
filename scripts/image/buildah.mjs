import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { run } from "../install/step.mjs";
import { isAlive } from "./lock.mjs";

/**
 * Buildah with a store of its own in .local/image, so that this machine's other images are neither
 * used nor filled up.
 */
export class Buildah {
  #options;
  #signal;

  constructor(root, { signal } = {}) {
    const folder = join(root, ".local/image");
    mkdirSync(folder, { recursive: true });
    this.#signal = signal;
    this.layered = canMountOverlay(folder);
    this.#options = [
      ["--root", join(folder, "storage")],
      ["--runroot", join(folder, "run")],
      // "vfs" works everywhere and copies everything for each layer.
      ["--storage-driver", this.layered ? "overlay" : "vfs"],
    ].flat();
  }

  /** Runs one command to its end; resolves with what it printed, trimmed. */
  async run(args, { what = `run buildah ${args[0]}`, cwd } = {}) {
    const output = await run("buildah", [...this.#options, ...args], {
      what,
      cwd,
      signal: this.#signal,
    });
    return output.trim();
  }

  has(image) {
    const args = [...this.#options, "inspect", "--type", "image", image];
    return spawnSync("buildah", args).status === 0;
  }

  /**
   * Removes what killed builds and boots left behind, and all cached layers once there are more
   * than `maxImages`. Not while another build is running.
   */
  async tidy(maxImages) {
    const names = lines(await this.run(["containers", "--format", "{{.ContainerName}}"]));
    const inUse = (name) => isAlive(Number(/^booted-(\d+)-/.exec(name)?.[1] ?? Number.NaN));
    for (const name of names.filter((each) => !inUse(each))) await this.run(["rm", name]);
    const images = lines(await this.run(["images", "--all", "--quiet"]));
    if (images.length > maxImages) await this.run(["rmi", "--prune"]);
  }

  /** A new container of an image, as { root, remove }: its file system, and its end. */
  async mount(image) {
    const name = `booted-${process.pid}-${Date.now()}`;
    const container = await this.run(["from", "--name", name, image]);
    const root = await this.run(["mount", container]);
    return { root, remove: () => this.run(["rm", container]) };
  }

  /** What the image says about itself: { Entrypoint, Cmd, Env, Healthcheck, … }. */
  async config(image) {
    return JSON.parse(await this.run(["inspect", "--type", "image", image])).Docker.config;
  }
}

function lines(output) {
  return output.split("\n").filter(Boolean);
}

function canMountOverlay(folder) {
  const trial = join(folder, "overlay-trial");
  for (const name of ["lower", "upper", "work", "merged"]) {
    mkdirSync(join(trial, name), { recursive: true });
  }
  const options = `lowerdir=${trial}/lower,upperdir=${trial}/upper,workdir=${trial}/work`;
  // In a namespace of its own, where it ends with the command.
  const mount = ["mount", "-t", "overlay", "overlay", "-o", options, join(trial, "merged")];
  const works = spawnSync("unshare", ["--mount", ...mount]).status === 0;
  rmSync(trial, { recursive: true, force: true });
  return works;
}
