/** JSON whose whole numbers beyond 2^53 are bigints, both ways. */

// Texts, or numbers of so many digits that they may be beyond; what is in a text is left alone.
const LONG = /"(?:[^"\\]|\\.)*"|-?\b\d{16,}\b(?![.eE])/g;

export function parse(json) {
  const marked = json.replace(LONG, (found) => (found.startsWith('"') ? found : `{"$whole":"${found}"}`));
  return JSON.parse(marked, (_, value) => {
    if (typeof value?.$whole !== "string") return value;
    const number = Number(value.$whole);
    return Number.isSafeInteger(number) ? number : BigInt(value.$whole);
  });
}

export function stringify(value) {
  const marked = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? { $whole: String(one) } : one));
  return marked.replace(/\{"\$whole":"(-?\d+)"\}/g, "$1");
}
