import { expect, test } from "bun:test";

import { holdPort } from "../../src/gateway/held-port.ts";
import { freePorts } from "../support/free-ports.ts";

const caddy = { uid: 54_331, gid: 54_331 };
const agent = { uid: 54_321, gid: 54_321 };

/** What comes of listening on the port as a user, in every way there is, on every address. */
async function listenAs(user: { uid: number; gid: number }, port: number): Promise<string[]> {
  const program = `
    const listen = (hostname, reusePort) => {
      try {
        Bun.listen({ hostname, port: ${port}, reusePort, ipv6Only: hostname.includes(":"), socket: { data() {} } }).stop(true);
        return "listens";
      } catch {
        return "refused";
      }
    };
    console.log(["0.0.0.0", "127.0.0.1", "::", "::1"].map((host) => listen(host, false) + " " + listen(host, true)).join());
  `;
  const child = Bun.spawn([process.execPath, "-e", program], {
    ...user,
    cwd: "/",
    env: {},
    stdout: "pipe",
    stderr: "inherit",
  });
  return (await child.stdout.text()).trim().split(",");
}

test.if(process.getuid?.() === 0)("holdPort leaves a port to one user alone", async () => {
  const [port = 0] = await freePorts(1);
  {
    using _ = holdPort(port, caddy);
    expect(new Set(await listenAs(agent, port))).toEqual(new Set(["refused refused"]));
    const [everywhere, loopback] = await listenAs(caddy, port);
    expect([everywhere, loopback]).toEqual(["refused listens", "refused listens"]);
    // Nobody listens: whoever connects is told so at once.
    await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow();
  }
  expect((await listenAs(agent, port))[0]).toBe("listens listens");
});

test.if(process.getuid?.() === 0)("holdPort says when somebody has the port", () => {
  using server = Bun.serve({ port: 0, fetch: () => new Response() });
  expect(() => holdPort(server.port ?? 0, caddy)).toThrow("somebody else has it");
});
