// Photos by drop, paste, choice or camera; each becomes a card with its answer.

import { call, make, percent, say, words } from "./api.js";
import { fillRoute, guess, whyNotSure } from "./explain.js";

const answers = document.getElementById("answers");
const drop = document.getElementById("drop");
const SIDE_BY_SIDE = 2;
let queue = Promise.resolve();
const lanes = Array.from({ length: SIDE_BY_SIDE }, () => Promise.resolve());
let turn = 0;

function card(file) {
  const url = URL.createObjectURL(file);
  const picture = make("img", { src: url, alt: `The photo ${file.name}` });
  picture.addEventListener("error", () => { picture.hidden = true; }); // a format that the browser does not show
  const text = make("div", {}, make("p", { className: "path" }, file.name), make("p", { className: "answer" }, "…"));
  const item = make("li", { className: "card" }, picture, text);
  answers.prepend(item);
  return text;
}

function show(text, file, row) {
  const sure = row.confidence === null ? "" : ` ${percent(row.confidence)}`;
  const name = row.label === "unknown" ? "unknown" : words(row.label) + sure;
  const parent = row.parent && row.parent !== row.label ? make("span", { className: "quiet" }, ` ${words(row.parent)}`) : "";
  const why = whyNotSure(row);
  const route = make("dl", { className: "route" });
  fillRoute(route, row);
  const guesses = make("ol", { className: "guesses" });
  for (const one of row.top) guesses.append(make("li", {}, guess("span", one.label, one.probability)));
  text.replaceChildren(
    make("p", { className: "path" }, file.name),
    make("p", { className: "answer" }, name, parent),
    ...(why ? [make("p", { className: "why" }, why)] : []),
    guesses,
    route,
  );
  say(`${file.name}: ${name}`);
}

async function classify(file, text) {
  try {
    const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    const row = await call("/v1/classify?explain=true", { method: "POST", headers: { "Content-Type": type }, body: file });
    show(text, file, row);
  } catch (error) {
    text.replaceChildren(
      make("p", { className: "path" }, file.name),
      make("p", { className: "answer wrong" }, error.problem?.code ? words(error.problem.code) : "no answer"),
      make("p", {}, error.message),
    );
    say(`${file.name}: ${error.message}`, true);
  }
}

function take(files) {
  for (const file of files) {
    const text = card(file);
    const lane = turn++ % SIDE_BY_SIDE;
    lanes[lane] = lanes[lane].then(() => classify(file, text));
  }
  queue = Promise.all(lanes);
}

async function camera() {
  if (!navigator.mediaDevices) {
    say("This browser gives the camera to https pages and to localhost only.", true);
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`There is no camera to use (${error.name}).`, true);
    return;
  }
  const dialog = document.getElementById("viewfinder");
  const video = document.getElementById("video");
  video.srcObject = stream;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue === "shoot") {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    if (blob) take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
  }
  for (const track of stream.getTracks()) track.stop();
  video.srcObject = null;
}

export function startTry() {
  const input = document.getElementById("files");
  input.addEventListener("change", () => { take(input.files); input.value = ""; });
  document.getElementById("camera").addEventListener("click", camera);
  const here = () => !document.getElementById("try").hidden;
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && here()) take([...event.dataTransfer.files]);
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length && here()) take(files);
  });
}
