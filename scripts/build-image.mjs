// Builds the container image where no registry can be reached; see docs and container/Dockerfile.
//
//   node scripts/build-image.mjs
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

import { buildImage, IMAGE } from "./image/build.mjs";
import { installPackages } from "./install/apt.mjs";
import { installMachine } from "./install/machine.mjs";
import { explain, say } from "./install/step.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stopped = new AbortController();
for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => stopped.abort());

try {
  const signal = stopped.signal;
  await installPackages(
    { buildah: "buildah", debootstrap: "debootstrap" },
    { why: "to build the image", signal },
  );
  const machine = await installMachine(root, { signal });
  await buildImage(root, { machine, signal });
  say(`The image is ${IMAGE} in .local/image; boot it with: node scripts/boot-image.mjs --help`);
} catch (error) {
  process.exitCode = explain(error);
}
