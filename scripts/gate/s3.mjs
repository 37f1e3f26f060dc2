import { join } from "node:path";
import { createInterface } from "node:readline";

const STOP_LIMIT_MS = 10_000;

/**
 * Starts the S3 server of the tests; it ends when this process does. Resolves with { variables,
 * stop }: what tells the tests where it is, and an end that leaves nothing behind. Throws with
 * what the server said when it does not start.
 */
export async function startS3(root, { processes, env }) {
  const { child, done } = processes.start(process.execPath, [join(root, "scripts/s3-server.mjs")], {
    cwd: root,
    env,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const said = [];
  child.stderr.on("data", (chunk) => said.push(chunk));
  const line = await Promise.race([
    new Promise((resolve) => createInterface(child.stdout).once("line", resolve)),
    done.then(() => undefined),
  ]);
  if (line === undefined) throw new Error(Buffer.concat(said).toString("utf8").trim());
  const server = JSON.parse(line);
  const variables = {
    S3_TEST_ENDPOINT: server.endpoint,
    S3_TEST_ACCESS_KEY_ID: server.accessKeyId,
    S3_TEST_SECRET_ACCESS_KEY: server.secretAccessKey,
    S3_TEST_REGION: server.region,
    S3_TEST_BUCKET: server.bucket,
  };
  const stop = async () => {
    child.kill("SIGTERM");
    await Promise.race([
      done,
      new Promise((resolve) => setTimeout(resolve, STOP_LIMIT_MS).unref()),
    ]);
  };
  return { variables, stop };
}
