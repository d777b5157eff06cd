// The page: photos in, answers out. `?bundle=URL` says where the bundle lies; `?replay` replays its golden files.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Cascade } from "./cascade.js";
import { replay } from "./replay.js";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need cross-origin isolation

const query = new URLSearchParams(location.search);
const bundle = new URL(query.get("bundle") ?? "bundle/", location.href);
const status = document.querySelector("#status"), answers = document.querySelector("#answers");

async function get(name) {
  const response = await fetch(new URL(name, bundle));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The browser decodes, turns upright and converts to sRGB; transparency is put on white. */
async function decode(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, k = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) rgb[k++] = data[i + c];
  return { width: canvas.width, height: canvas.height, data: rgb };
}

const element = (name, text = "", className = "") => Object.assign(document.createElement(name), { textContent: text, className });

async function show(cascade, file) {
  const row = element("li"), image = element("img"), text = element("div");
  image.src = URL.createObjectURL(file);
  image.alt = "";
  row.append(image, text);
  answers.prepend(row);
  try {
    const pixels = await decode(file), started = performance.now();
    const found = await cascade.classify(pixels), ms = performance.now() - started;
    text.append(element("h2", `${found.label}, ${(found.confidence * 100).toFixed(0)} % (${found.reason})`));
    const route = ["general", ...found.asked].join(" → ");
    text.append(element("p", `${file.name}: ${route}, ${ms.toFixed(0)} ms`, "route"));
    const ranked = cascade.bundle.labels.map(({ label }, i) => [label, found.probabilities[i]]).sort((a, b) => b[1] - a[1]);
    for (const [label, p] of ranked.slice(0, 5)) {
      const bar = element("div", "", "bar"), progress = element("progress");
      progress.value = p;
      bar.append(element("span", label), progress, element("span", `${(p * 100).toFixed(1)} %`));
      text.append(bar);
    }
  } catch (error) {
    image.remove();
    text.append(element("p", `${file.name} cannot be read: ${error.message}`, "error"));
  }
}

try {
  const cascade = await Cascade.load(ort, get);
  status.textContent = `Ready: ${cascade.bundle.name} ${cascade.bundle.version}.`;
  let last = Promise.resolve();
  const take = (files) => { for (const file of files) last = last.then(() => show(cascade, file)); };
  const drop = document.querySelector("#drop");
  document.querySelector("#files").addEventListener("change", (event) => take(event.target.files));
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.toggle("over", over); });
  drop.addEventListener("drop", (event) => take(event.dataTransfer.files));
  if (query.has("replay")) {
    const result = await replay(cascade, async (name) => decode(new Blob([await get(`golden/${name}`)])), false);
    status.textContent = JSON.stringify(result);
  }
  document.body.dataset.ready = "yes";
} catch (error) {
  status.textContent = `The models cannot be loaded: ${error.message}`;
  document.body.dataset.ready = "no";
}
