import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";

const APPEAR_LIMIT_MS = 10_000;
const LOOK_EVERY_MS = 20;

/** Mounts what a container engine would, then becomes the image's first process. */
const ENTER = `set -e
root=$1 volume=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$volume" "$root/data"
cat /etc/resolv.conf >"$root/etc/resolv.conf"
cat /etc/hosts >"$root/etc/hosts"
exec chroot "$root" "$@"`;

/**
 * Boots an image as PID 1 of namespaces of its own, on the network of this machine, with the given
 * folder as /data. Resolves with { pid, root, healthcheck, signal, exited }: the first process's
 * pid as seen from here, its file system, the command that tells its health, a way to send it
 * signals, and a promise of its exit code.
 * The environment reaches it as such and stands on no command line.
 */
export async function bootImage({ buildah, image, env, volume, stdio = "inherit" }) {
  const config = await buildah.config(image);
  const container = await buildah.mount(image);
  mkdirSync(volume, { recursive: true });
  const flags = ["--pid", "--mount", "--fork", "--kill-child=SIGKILL"];
  const command = [...config.Entrypoint, ...(config.Cmd ?? [])];
  const child = spawn(
    "/usr/bin/unshare",
    [...flags, "/bin/sh", "-c", ENTER, "sh", container.root, volume, ...command],
    { env: { ...imageEnvironment(config), ...env }, stdio, detached: true },
  );
  const exited = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? signal));
  }).finally(() => container.remove());
  const pid = await firstProcess(child.pid);
  const healthcheck = config.Healthcheck?.Test.slice(1);
  return {
    pid,
    root: container.root,
    healthcheck,
    exited,
    signal: (name) => process.kill(pid, name),
  };
}

function imageEnvironment(config) {
  return Object.fromEntries((config.Env ?? []).map((entry) => splitOnce(entry, "=")));
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** unshare does not become the first process but its parent, and passes no signals on. */
async function firstProcess(parent) {
  for (const started = Date.now(); Date.now() - started < APPEAR_LIMIT_MS;) {
    const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim();
    if (children !== "") return Number(children.split(" ")[0]);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  throw new Error("Cannot boot the image: its first process did not appear");
}
