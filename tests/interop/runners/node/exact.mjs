/** JSON whose whole numbers beyond 2^53 are bigints, in both directions. */

// Texts, which stay as they are, and numbers with so many digits that they may be beyond 2^53.
const LONG = /"(?:[^"\\]|\\.)*"|-?\b\d{16,}\b(?![.eE])/g;

export function parse(json) {
  const marked = json.replace(LONG, (match) => (match.startsWith('"') ? match : `{"$whole":"${match}"}`));
  return JSON.parse(marked, (_, value) => {
    if (typeof value?.$whole !== "string") return value;
    const number = Number(value.$whole);
    return Number.isSafeInteger(number) ? number : BigInt(value.$whole);
  });
}

export function stringify(value) {
  const marked = JSON.stringify(value, (_, entry) => (typeof entry === "bigint" ? { $whole: String(entry) } : entry));
  return marked.replace(/\{"\$whole":"(-?\d+)"\}/g, "$1");
}
