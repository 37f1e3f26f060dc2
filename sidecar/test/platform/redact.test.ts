import { expect, test } from "bun:test";

import { createRedactor } from "../../src/platform/redact.ts";

test("createRedactor() replaces a secret wherever it stands, also encoded", () => {
  const redact = createRedactor(['p@ss/w"rd!', "p@ss/w"]);
  expect(redact('say p@ss/w"rd! twice p@ss/w"rd!')).toBe("say [redacted] twice [redacted]");
  expect(redact(`?token=${encodeURIComponent('p@ss/w"rd!')}&x`)).toBe("?token=[redacted]&x");
  expect(redact(JSON.stringify({ key: 'p@ss/w"rd!' }))).toBe('{"key":"[redacted]"}');
});

test("createRedactor() leaves a text alone where there is nothing to hide", () => {
  expect(createRedactor([])("anything")).toBe("anything");
  expect(createRedactor(["ab"])("abc")).toBe("abc");
});

test("createRedactor() takes in secrets that come later, and keeps the first ones for ever", () => {
  const redact = createRedactor(["first-secret"]);
  redact.add(["second-secret", "short"]);
  for (let i = 0; i < 400; i += 1) redact.add([`later-secret-${i}`]);
  expect(redact("first-secret short later-secret-399")).toBe("[redacted] short [redacted]");
});
