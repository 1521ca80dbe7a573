// Compresses what was built, and fails where the first view loads too much JavaScript.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const DIST = new URL("../dist/", import.meta.url).pathname;
/** Bytes of JavaScript, compressed with gzip, of the first view. */
const FIRST_VIEW = 250_000;
const COMPRESSED = new Set([".js", ".css", ".html", ".svg"]);

const manifest = JSON.parse(readFileSync(join(DIST, "manifest.json"), "utf8"));
rmSync(join(DIST, "manifest.json"));

const files = new Set();
/** Adds a chunk and those that it can not do without. */
function add(name) {
  const chunk = manifest[name];
  if (files.has(chunk.file)) return;
  files.add(chunk.file);
  for (const part of chunk.imports ?? []) add(part);
}
add("index.html");

let total = 0;
for (const file of files) total += gzipSync(readFileSync(join(DIST, file)), { level: 9 }).length;
const shown = `${(total / 1000).toFixed(1)} kB of JavaScript (gzip) for the first view`;
if (total > FIRST_VIEW) {
  console.error(`${shown}: more than ${FIRST_VIEW / 1000} kB. Load what is not seen at once with import().`);
  process.exit(1);
}
console.log(shown);

for (const entry of readdirSync(DIST, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !COMPRESSED.has(extname(entry.name))) continue;
  const path = join(entry.parentPath, entry.name);
  const bytes = readFileSync(path);
  writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
  writeFileSync(
    `${path}.br`,
    brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }),
  );
}
