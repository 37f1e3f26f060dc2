import { expect, test } from "bun:test";

import { createLogger } from "../../src/platform/log.ts";
import { createRedactor } from "../../src/platform/redact.ts";

function lineOf(write: (log: ReturnType<typeof createLogger>) => void): Record<string, unknown> {
  const lines: string[] = [];
  write(
    createLogger({ redact: createRedactor(["s3cret-value"]), write: (line) => lines.push(line) }),
  );
  expect(lines).toHaveLength(1);
  expect(lines[0]).toEndWith("\n");
  return JSON.parse(lines[0] ?? "") as Record<string, unknown>;
}

test("a log line is one JSON object with time, level, message and fields", () => {
  const line = lineOf((log) =>
    log.child({ part: "backup" }).warn({ path: "a\nb" }, "Cannot read a file"),
  );
  expect(line).toMatchObject({
    level: "warn",
    part: "backup",
    path: "a\nb",
    message: "Cannot read a file",
  });
  expect(Date.parse(String(line["time"]))).toBeGreaterThan(0);
});

test("a logged error shows its message and causes, without a stack", () => {
  const error = new Error("Cannot open it", { cause: new Error("no such file") });
  expect(lineOf((log) => log.error({ error }, "It failed"))["error"]).toEqual({
    message: "Cannot open it",
    cause: { message: "no such file" },
  });
});

test("a known secret never reaches a line", () => {
  const error = new Error("401 for s3cret-value");
  expect(
    JSON.stringify(lineOf((log) => log.error({ error, url: "x?k=s3cret-value" }, "It failed"))),
  ).not.toContain("s3cret-value");
});
