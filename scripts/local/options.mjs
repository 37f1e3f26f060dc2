import { parseArgs } from "node:util";

/** The three ports of a machine: flag, variable, who listens there, and the default. */
export const PORTS = [
  { flag: "port", variable: "PORT", listener: "the sidecar", usual: 8080 },
  { flag: "public-port", variable: "PUBLIC_PORT", listener: "Caddy", usual: 18789 },
  { flag: "gateway-port", variable: "GATEWAY_PORT", listener: "OpenClaw", usual: 18788 },
];

export const HELP = `npm start [-- options]: runs a whole machine on this computer

What is missing is installed first (Bun, OpenClaw and its Node from npm, Caddy from Debian), all of
it below node_modules and .local. Then the sidecar starts with a volume in .local/machine/data,
backed up to the folder .local/machine/store, and listens on 127.0.0.1 through Caddy.

  --public-port N   where Caddy listens, the one for browsers (PUBLIC_PORT, ${PORTS[1].usual})
  --port N          where the sidecar listens (PORT, ${PORTS[0].usual})
  --gateway-port N  where OpenClaw listens (GATEWAY_PORT, ${PORTS[2].usual})
  --dir FOLDER      where the machine keeps its volume, backup, token and log (.local/machine)
  --log             also print the sidecar's log
  --help            this text

Every variable of the README's table may be set in the environment, e.g.
  ANTHROPIC_API_KEY=… npm start
  BACKUP_URL=s3://bucket R2_ENDPOINT=… R2_ACCESS_KEY_ID=… R2_SECRET_ACCESS_KEY=… npm start

Ctrl-C stops the machine in order: gateway, last commit, sidecar. To see a restore, remove
.local/machine/data: the backup in .local/machine/store comes back into it at the next start.
Remove .local/machine to forget both.`;

/** A wrong flag or a port that cannot be used; its message is for the person who typed it. */
export class UsageError extends Error {}

/**
 * Parses flags over environment into { help, log, dir, ports: { PORT, PUBLIC_PORT, GATEWAY_PORT } };
 * `dir` is undefined where it was not given.
 */
export function parseOptions(args, env) {
  const values = parseFlags(args);
  const ports = Object.fromEntries(
    PORTS.map(({ flag, variable, usual }) => [
      variable,
      parsePort(values[flag] ?? (env[variable] || String(usual)), `--${flag}`),
    ]),
  );
  for (const [index, { flag, variable }] of PORTS.entries()) {
    const twin = PORTS.slice(0, index).find((other) => ports[other.variable] === ports[variable]);
    if (twin)
      throw new UsageError(
        `Cannot use port ${ports[variable]} twice: for --${twin.flag} and --${flag}`,
      );
  }
  return { help: values.help ?? false, log: values.log ?? false, dir: values.dir, ports };
}

function parseFlags(args) {
  const flags = PORTS.map(({ flag }) => [flag, { type: "string" }]);
  const options = {
    ...Object.fromEntries(flags),
    dir: { type: "string" },
    log: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  };
  try {
    return parseArgs({ args, options }).values;
  } catch (error) {
    throw new UsageError(`${error.message}\nSee: npm start -- --help`, { cause: error });
  }
}

function parsePort(text, flag) {
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new UsageError(`Cannot use "${text}" for ${flag}: it is not a port number`);
}
