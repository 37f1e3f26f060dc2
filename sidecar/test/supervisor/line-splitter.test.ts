import { expect, test } from "bun:test";

import {
  LINE_BYTES,
  LineSplitter,
  MARGIN_BYTES,
  finishLine,
} from "../../src/supervisor/line-splitter.ts";

function split(chunks: readonly (string | Uint8Array)[], redact = (text: string) => text) {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(finishLine(line, redact)));
  for (const chunk of chunks) {
    splitter.push(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
  }
  splitter.end();
  return lines;
}

test.each([
  ["a whole line", ["one\n"], ["one"]],
  ["a line in parts", ["o", "n", "e\n"], ["one"]],
  ["many lines in one chunk", ["one\ntwo\nthree\n"], ["one", "two", "three"]],
  ["a line across a chunk", ["one\ntw", "o\n"], ["one", "two"]],
  ["empty lines", ["\n\none\n\n"], ["", "", "one", ""]],
  ["a last line without an end", ["one\ntwo"], ["one", "two"]],
  ["a carriage return at the end", ["one\r\ntwo\r", "\n"], ["one", "two"]],
  ["a character in two chunks", ["gr\u{fc}n\n".slice(0, 2), "\u{fc}n\n"], ["gr\u{fc}n"]],
  ["a byte order mark", ["\u{feff}one\n"], ["\u{feff}one"]],
  ["nothing", [], []],
])("LineSplitter takes %s", (_what, chunks, expected) => {
  expect(split(chunks)).toEqual(expected);
});

test("LineSplitter joins the bytes of one character", () => {
  const bytes = new TextEncoder().encode("€\n");
  expect(split([bytes.subarray(0, 1), bytes.subarray(1, 2), bytes.subarray(2)])).toEqual(["€"]);
});

test("LineSplitter turns bytes that are no UTF-8 into U+FFFD and goes on", () => {
  const bytes = new Uint8Array([0x61, 0xff, 0xfe, 0x62, 0x0a, 0x63, 0x0a]);
  expect(split([bytes])).toEqual(["a\u{fffd}\u{fffd}b", "c"]);
});

test.each([
  ["at the limit", LINE_BYTES, ""],
  ["one above it", LINE_BYTES + 1, "… (1 more)"],
])("LineSplitter keeps a line %s", (_what, length, suffix) => {
  const [line] = split([`${"x".repeat(length)}\n`]);
  expect(line).toBe("x".repeat(LINE_BYTES) + suffix);
});

test("LineSplitter cuts a long line, says how much is gone, and takes the next one whole", () => {
  const chunk = "x".repeat(64 * 1024);
  const lines = split([...Array.from({ length: 160 }, () => chunk), "\nnext\n"]);
  expect(lines).toHaveLength(2);
  expect(lines[0]).toMatch(/^x{16384}… \(\d+ more\)$/);
  expect(lines[0]).toContain(`(${160 * 64 * 1024 - LINE_BYTES} more)`);
  expect(lines[1]).toBe("next");
});

const SECRET = "s3cr3t-".repeat(8);

test.each([0, 1, 20, SECRET.length - 1, SECRET.length, MARGIN_BYTES / 2, MARGIN_BYTES])(
  "finishLine shows no part of a secret that begins %d bytes before the cut",
  (before) => {
    for (const cut of [LINE_BYTES, LINE_BYTES + MARGIN_BYTES]) {
      const [line = ""] = split(
        [`${"x".repeat(cut - before)}${SECRET}${"y".repeat(5_000)}\n`],
        (text) => text.replaceAll(SECRET, "***"),
      );
      expect(line).not.toContain("s3c");
      expect(line).not.toContain("r3t");
    }
  },
);
