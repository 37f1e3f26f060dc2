import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

import { npm } from "../install/npm.mjs";
import { findProgram, InstallError, say } from "../install/step.mjs";
import { CADDY_IMAGE, makeBaseImages, NODE_IMAGE } from "./base-images.mjs";
import { Buildah } from "./buildah.mjs";
import { withLock } from "./lock.mjs";

export const IMAGE = "localhost/machine";

/** What the Dockerfile copies, besides itself; see .dockerignore. */
const INPUTS = ["container", "package.json", "package-lock.json", ".dockerignore", "sidecar/src"];
/** Layers kept for the next build, a dozen for each that changed everything. */
const MAX_IMAGES = 50;
const CERTIFICATES = "/etc/ssl/certs";

/** Why this machine cannot build an image, or undefined if it can. */
function whyNotBuildable() {
  if (process.getuid?.() !== 0) return "building an image needs root";
  const path = `${process.env.PATH}:/usr/sbin:/sbin`;
  const missing = ["buildah", "debootstrap", "unshare"].filter((name) => !findProgram(name, path));
  return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")}`;
}

/**
 * Builds the image of container/Dockerfile over stand-ins for its base images, into .local/image,
 * and resolves with the Buildah that holds it as IMAGE. Does nothing when nothing of it changed;
 * an interrupted build goes on where it was.
 */
export async function buildImage(root, { machine, signal }) {
  const reason = whyNotBuildable();
  if (reason) throw new InstallError(`Cannot build the image: ${reason}`);
  const buildah = new Buildah(root, { signal });
  const lock = join(root, ".local/image/building");
  await withLock(lock, () => buildUnlessThere(root, { buildah, machine, signal }), { signal });
  return buildah;
}

async function buildUnlessThere(root, { buildah, machine, signal }) {
  const stamp = join(root, ".local/image/built");
  const wanted = hashOf(root);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted && buildah.has(IMAGE)) {
    return;
  }
  await buildah.tidy(MAX_IMAGES);
  await makeBaseImages(root, { buildah, machine, signal });
  say("Building the image of container/Dockerfile");
  const args = [
    // Docker's format has a health check, the other has none.
    ["bud", "--format=docker", "--isolation=chroot", "--network=host", "--pull-never"],
    ["--build-arg", `NODE_IMAGE=${NODE_IMAGE}`, "--build-arg", `CADDY_IMAGE=${CADDY_IMAGE}`],
    // What npm and apt need here to reach the network: certificates and npm's own settings.
    ["--volume", `${CERTIFICATES}:${CERTIFICATES}:ro`],
    ["--secret", `id=npmrc,src=${await writeNpmrc(root, signal)}`],
    buildah.layered ? ["--layers", "--force-rm"] : [],
    ["--tag", IMAGE, "--file", "container/Dockerfile", "."],
  ];
  await buildah.run(args.flat(), { what: "build the image", cwd: root });
  writeFileSync(stamp, wanted);
}

async function writeNpmrc(root, signal) {
  const own = join(process.env.HOME ?? homedir(), ".npmrc");
  const path = join(root, ".local/image/npmrc");
  const registry = await npm(["config", "get", "registry"], {
    what: "ask npm for its registry",
    signal,
  });
  const lines = [
    existsSync(own) ? readFileSync(own, "utf8") : "",
    `registry=${registry.trim()}`,
    `cafile=${CERTIFICATES}/ca-certificates.crt`,
  ];
  writeFileSync(path, `${lines.join("\n")}\n`, { mode: 0o600 });
  return path;
}

function hashOf(root) {
  const hash = createHash("sha256");
  const paths = INPUTS.flatMap((input) => filesUnder(root, input));
  for (const path of paths.sort((a, b) => (a < b ? -1 : 1))) {
    hash
      .update(path)
      .update("\0")
      .update(readFileSync(join(root, path)))
      .update("\0");
  }
  return hash.digest("hex");
}

function filesUnder(root, path) {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path)).flatMap((name) => filesUnder(root, `${path}/${name}`));
}
