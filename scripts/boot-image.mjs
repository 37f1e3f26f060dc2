// Builds the container image (see build-image.mjs) and boots it as a container engine would.
//
//   node scripts/boot-image.mjs --env USER_ID=me --env OPENCLAW_GATEWAY_TOKEN=… [--volume DIR]
//
// Prints { pid, root, healthcheck } as a line of JSON, then the machine's log. SIGTERM and SIGINT go to the
// machine; its exit code is ours.
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { bootImage } from "./image/boot.mjs";
import { buildImage, IMAGE } from "./image/build.mjs";
import { installMachine } from "./install/machine.mjs";
import { explain } from "./install/step.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    env: { type: "string", multiple: true, default: [] },
    volume: { type: "string", default: join(root, ".local/image/data") },
  },
});

const stopped = new AbortController();
let booted;
for (const name of ["SIGINT", "SIGTERM"]) {
  process.on(name, () => {
    stopped.abort();
    booted?.signal(name);
  });
}

try {
  const machine = await installMachine(root, { signal: stopped.signal });
  const buildah = await buildImage(root, { machine, signal: stopped.signal });
  stopped.signal.throwIfAborted();
  const env = Object.fromEntries(
    values.env.map(
      (entry) => /^([^=]+)=(.*)$/s.exec(entry)?.slice(1) ?? [entry, process.env[entry]],
    ),
  );
  booted = await bootImage({ buildah, image: IMAGE, env, volume: resolve(values.volume) });
  const { pid, root: files, healthcheck } = booted;
  console.log(JSON.stringify({ pid, root: files, healthcheck }));
  const code = await booted.exited;
  process.exitCode = typeof code === "number" ? code : 1;
} catch (error) {
  process.exitCode = explain(error);
}
