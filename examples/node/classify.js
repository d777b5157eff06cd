// node classify.js BUNDLE PHOTO...      one line of JSON per photo
// node classify.js BUNDLE --replay      replays the golden files; exit code 1 if anything differs
import { readFile } from "node:fs/promises";
import { join } from "node:path";

process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before onnxruntime is imported
const ort = await import("onnxruntime-node");
const { Cascade } = await import("../web/cascade.js");
const { replay } = await import("../web/replay.js");
const { decode } = await import("./decode.js");

const [folder, ...photos] = process.argv.slice(2);
const cascade = await Cascade.load(ort, async (name) => new Uint8Array(await readFile(join(folder, name))));
if (photos[0] === "--replay") {
  const result = await replay(cascade, (name) => decode(join(folder, "golden", name)));
  console.log(JSON.stringify(result));
  process.exitCode = result.problems.length ? 1 : 0;
} else {
  for (const path of photos) {
    try {
      const { label, parent, confidence, reason, asked } = await cascade.classify(await decode(path));
      console.log(JSON.stringify({ path, label, parent, confidence, reason, asked }));
    } catch (error) {
      console.log(JSON.stringify({ path, error: error.message }));
      process.exitCode = 1;
    }
  }
}
