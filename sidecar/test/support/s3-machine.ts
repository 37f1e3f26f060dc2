import { s3ForTests } from "./s3-server.ts";
import { TcpProxy } from "./tcp-proxy.ts";

/** The environment of a machine whose store is under a prefix of its own in the real S3 server, behind a proxy. */
export async function s3Behind(): Promise<{
  readonly proxy: TcpProxy;
  readonly env: Readonly<Record<string, string>>;
}> {
  const s3 = await s3ForTests();
  const { hostname, port } = new URL(s3.endpoint);
  const proxy = await TcpProxy.start({ host: hostname, port: Number(port) });
  const env = {
    BACKUP_URL: `s3://${s3.bucket}/machine-${crypto.randomUUID()}`,
    R2_ENDPOINT: `http://127.0.0.1:${proxy.port}`,
    R2_REGION: s3.region,
    R2_ACCESS_KEY_ID: s3.accessKeyId,
    R2_SECRET_ACCESS_KEY: s3.secretAccessKey,
  };
  return { proxy, env };
}
