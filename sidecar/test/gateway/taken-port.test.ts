import { expect, test } from "bun:test";

import { requireFreePort } from "../../src/gateway/taken-port.ts";
import { freePorts } from "../support/free-ports.ts";

test.each(["127.0.0.1", "0.0.0.0"])(
  "a port that is taken on %s is named with its holder",
  async (hostname) => {
    const server = Bun.serve({ hostname, port: 0, fetch: () => new Response("mine") });
    const port = server.port ?? 0;
    try {
      expect(() => requireFreePort(port, "GATEWAY_PORT")).toThrow(
        new RegExp(`^Cannot use port ${port}: process ${process.pid} \\(.+\\).*GATEWAY_PORT$`),
      );
    } finally {
      await server.stop(true);
    }
  },
);

test("a free port is no reason to complain", async () => {
  const [port = 0] = await freePorts(1);
  expect(() => requireFreePort(port, "GATEWAY_PORT")).not.toThrow();
});
