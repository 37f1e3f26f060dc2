/**
 * Reads a JUnit report into { passed, failed, skipped, failures, skips, files }: counts of test
 * cases, "file: name" of those that failed or were skipped, and the files that ran.
 */
export function parseJunit(xml) {
  const cases = [...xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(
    ([, attributes, body = ""]) => ({
      file: attribute(attributes, "file"),
      name: attribute(attributes, "name"),
      outcome: /<(failure|error)\b/.test(body)
        ? "failed"
        : /<skipped\b/.test(body)
          ? "skipped"
          : "passed",
    }),
  );
  const named = (outcome) =>
    cases.filter((entry) => entry.outcome === outcome).map(({ file, name }) => `${file}: ${name}`);
  return {
    passed: named("passed").length,
    failed: named("failed").length,
    skipped: named("skipped").length,
    failures: named("failed"),
    skips: named("skipped"),
    files: new Set(
      [...xml.matchAll(/<testsuite\b([^>]*)>/g)].map(([, text]) => attribute(text, "file")),
    ),
  };
}

function attribute(text, name) {
  const match = new RegExp(`\\b${name}="([^"]*)"`).exec(text);
  return match ? unescape(match[1]) : "";
}

const ENTITIES = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function unescape(text) {
  return text.replace(/&(#?)(\w+);/g, (whole, hash, name) => {
    if (!hash) return ENTITIES[name] ?? whole;
    return String.fromCodePoint(Number(name.startsWith("x") ? `0${name}` : name));
  });
}
