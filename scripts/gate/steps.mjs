/** What must hold of the source, besides the tests; the same as `bun run check` runs. */
export const STEPS = [
  { name: "format", script: "node_modules/oxfmt/bin/oxfmt", args: ["--check"] },
  { name: "lint", script: "node_modules/oxlint/bin/oxlint", args: ["--deny-warnings"] },
  { name: "types", script: "node_modules/typescript/bin/tsc", args: ["--noEmit"] },
  { name: "dead code", script: "node_modules/knip/bin/knip.js", args: [] },
];
