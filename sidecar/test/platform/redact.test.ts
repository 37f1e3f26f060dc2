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
