/**
 * Returns a function that replaces every occurrence of `secrets` by "[redacted]", also as it stands percent-encoded in
 * a URL and escaped in JSON. The second line of defence: nothing should log a secret in the first place.
 */
export function createRedactor(secrets: readonly string[]): (text: string) => string {
  const forms = new Set<string>();
  for (const secret of secrets) {
    // Shorter ones would blacken ordinary words.
    if (secret.length < 8) continue;
    forms.add(secret);
    forms.add(encodeURIComponent(secret));
    forms.add(JSON.stringify(secret).slice(1, -1));
  }
  if (forms.size === 0) return (text) => text;
  const pattern = new RegExp(
    [...forms]
      .sort((a, b) => b.length - a.length)
      .map((form) => RegExp.escape(form))
      .join("|"),
    "g",
  );
  return (text) => text.replace(pattern, "[redacted]");
}
