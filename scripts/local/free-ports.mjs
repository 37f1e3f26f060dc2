import { once } from "node:events";
import { createServer } from "node:net";

import { PORTS, UsageError } from "./options.mjs";

/** Throws UsageError naming every port that something else listens on, and how to choose others. */
export async function requireFreePorts(ports) {
  const taken = [];
  for (const entry of PORTS) {
    if (!(await isFree(ports[entry.variable]))) taken.push(entry);
  }
  if (taken.length === 0) return;
  const lines = taken.map(
    ({ flag, variable, listener }) =>
      `Port ${ports[variable]}, meant for ${listener}, is already taken: choose another with --${flag} ${suggestion(ports, variable)} or ${variable}=${suggestion(ports, variable)}`,
  );
  const flags = taken.map(({ flag, variable }) => `--${flag} ${suggestion(ports, variable)}`);
  throw new UsageError(`${lines.join("\n")}\nFor example: npm start -- ${flags.join(" ")}`);
}

async function isFree(port) {
  for (const host of ["0.0.0.0", "127.0.0.1"]) {
    const server = createServer().listen({ port, host, exclusive: true });
    try {
      await once(server, "listening");
    } catch (error) {
      if (error.code === "EADDRINUSE" || error.code === "EACCES") return false;
      throw error;
    } finally {
      server.close();
    }
  }
  return true;
}

function suggestion(ports, variable) {
  const port = ports[variable];
  return port + 10 <= 65_535 ? port + 10 : port - 10;
}
