// Applies sequences of snapshots and patches as the documented page does, with both libraries, and compares each step.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import jsonpatch from "fast-json-patch";
import { applyPatches, enablePatches } from "immer";

enablePatches();

const steps = (path) =>
  path
    .split("/")
    .slice(1)
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));

const libraries = {
  "fast-json-patch": (state, patch) => jsonpatch.applyPatch(state, patch, true, false).newDocument,
  immer: (state, patch) => applyPatches(state, patch.map((step) => ({ ...step, path: steps(step.path) }))),
};

const { cases } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wrong = [];
let count = 0;
// as JSON, which has no -0
const json = (value) => JSON.parse(JSON.stringify(value));
for (const [name, apply] of Object.entries(libraries)) {
  for (const sequence of cases) {
    let state;
    for (const { data, expected } of sequence) {
      state = "snapshot" in data ? structuredClone(data.snapshot) : apply(state, structuredClone(data.patch));
      count += 1;
      if (!isDeepStrictEqual(json(state), json(expected))) {
        wrong.push({ name, data, state, expected });
        break;
      }
    }
  }
}
process.stdout.write(JSON.stringify({ count, wrong: wrong.slice(0, 3) }));
