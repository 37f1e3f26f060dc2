import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";

import { npm } from "../install/npm.mjs";
import { run, say } from "../install/step.mjs";

const SUITE = "bookworm";
const NPM = "11.19.1";

export const NODE_IMAGE = "localhost/stand-in-node:24";
export const CADDY_IMAGE = "localhost/stand-in-caddy:2";

/**
 * Makes stand-ins for the base images that container/Dockerfile names, where no registry can be
 * reached: Debian with the pinned Node and npm, and a folder with a Caddy in it. Does nothing when
 * they are there.
 */
export async function makeBaseImages(root, { buildah, machine, signal }) {
  if (!buildah.has(CADDY_IMAGE)) {
    await makeImage(buildah, CADDY_IMAGE, [[machine.caddy, "/usr/bin/caddy"]]);
  }
  if (buildah.has(NODE_IMAGE)) return;
  const folder = join(root, ".local/image/base.partial");
  rmSync(folder, { recursive: true, force: true });
  say(`Making a base image: Debian ${SUITE} with Node and npm`);
  await run("debootstrap", ["--variant=minbase", "--include=ca-certificates", SUITE, folder], {
    what: "run debootstrap",
    signal,
  });
  cpSync(machine.node, join(folder, "usr/local/bin/node"));
  await npm(["install", "--global", `--prefix=${join(folder, "usr/local")}`, `npm@${NPM}`], {
    what: "install npm into the base image",
    signal,
  });
  await makeImage(buildah, NODE_IMAGE, [[folder, "/"]]);
  rmSync(folder, { recursive: true, force: true });
}

async function makeImage(buildah, image, copies) {
  const container = await buildah.run(["from", "scratch"]);
  try {
    for (const [from, to] of copies) {
      await buildah.run(["copy", "--quiet", container, from, to], {
        what: `copy ${from} into ${image}`,
      });
    }
    await buildah.run(["commit", "--quiet", container, image], { what: `commit ${image}` });
  } finally {
    await buildah.run(["rm", container]);
  }
}
