// A bundle in JavaScript, for Node and for the browser: from upright RGB to an answer, as EMBEDDING.md says.

/** A photo: `data` holds width * height * 3 bytes, RGB, upright. */
export const photo = (width, height, data) => ({ width, height, data });

export function reductionFactor({ width, height }, specs) {
  const fraction = (s) => (s.crop === "center" ? s.crop_fraction : 1);
  const gap = Math.max(...specs.map((s) => s.reducing_gap));
  const across = gap * Math.max(...specs.map((s) => Math.round(s.width / fraction(s))));
  const down = gap * Math.max(...specs.map((s) => Math.round(s.height / fraction(s))));
  let factor = 1;
  while (factor < 8 && width / (2 * factor) >= across && height / (2 * factor) >= down) factor *= 2;
  return factor;
}

/** Mean of blocks of factor x factor pixels, rounded half up; blocks at the edges may be smaller. */
export function reduce({ width, height, data }, factor) {
  if (factor === 1) return { width, height, data };
  const w = Math.ceil(width / factor), h = Math.ceil(height / factor);
  const out = new Uint8Array(w * h * 3);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const bottom = Math.min(height, (y + 1) * factor), right = Math.min(width, (x + 1) * factor);
      const count = (bottom - y * factor) * (right - x * factor);
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let v = y * factor; v < bottom; v++)
          for (let u = x * factor; u < right; u++) sum += data[(v * width + u) * 3 + c];
        out[(y * w + x) * 3 + c] = Math.floor((sum + (count >> 1)) / count);
      }
    }
  return photo(w, h, out);
}

const KERNELS = {
  bicubic: [2, (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - x)],
};

/** For every position of the result: the first pixel that counts, and the weights from there on. */
function weights(from, to, [reach, kernel]) {
  const scale = from / to, stretch = Math.max(scale, 1), support = reach * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5));
    const last = Math.min(from, Math.floor(centre + support + 0.5));
    const w = Array.from({ length: last - first }, (_, j) => kernel(Math.abs((j + first - centre + 0.5) / stretch)));
    const sum = w.reduce((a, b) => a + b, 0);
    return [first, w.map((one) => one / sum)];
  });
}

/** The horizontal pass first, each pass rounded to bytes. */
export function resize({ width, height, data }, w, h, interpolation = "bicubic") {
  const kernel = KERNELS[interpolation];
  if (!kernel) throw new Error(`interpolation ${interpolation} is not known here`);
  const byte = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));
  let rows = data;
  if (w !== width) {
    rows = new Uint8Array(w * height * 3);
    weights(width, w, kernel).forEach(([first, ws], x) => {
      for (let y = 0; y < height; y++)
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let j = 0; j < ws.length; j++) sum += ws[j] * data[(y * width + first + j) * 3 + c];
          rows[(y * w + x) * 3 + c] = byte(sum);
        }
    });
  }
  if (h === height) return photo(w, h, rows);
  const out = new Uint8Array(w * h * 3), row = w * 3;
  weights(height, h, kernel).forEach(([first, ws], y) => {
    for (let k = 0; k < row; k++) {
      let sum = 0;
      for (let j = 0; j < ws.length; j++) sum += ws[j] * rows[(first + j) * row + k];
      out[y * row + k] = byte(sum);
    }
  });
  return photo(w, h, out);
}

/** From upright RGB, reduced already, to the input of a stage. */
export function prepare(image, spec) {
  if (spec.crop === "squash") return resize(image, spec.width, spec.height, spec.interpolation);
  const want = [spec.width, spec.height].map((n) => Math.trunc(n / spec.crop_fraction));
  const short = Math.min(image.width, image.height), square = spec.width === spec.height;
  const ratio = Math.min(image.width / want[0], image.height / want[1]);
  const [w, h] = square
    ? [Math.trunc((want[0] * image.width) / short), Math.trunc((want[1] * image.height) / short)]
    : [halfEven(image.width / ratio), halfEven(image.height / ratio)];
  const scaled = resize(image, w, h, spec.interpolation);
  const left = halfEven((w - spec.width) / 2), top = halfEven((h - spec.height) / 2);
  const out = new Uint8Array(spec.width * spec.height * 3);
  for (let y = 0; y < spec.height; y++) {
    const start = ((y + top) * w + left) * 3;
    out.set(scaled.data.subarray(start, start + spec.width * 3), y * spec.width * 3);
  }
  return photo(spec.width, spec.height, out);
}

const halfEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** POLICY.md, in the order of the labels of bundle.json. */
export function decide(bundle, point, probabilities, score) {
  const answer = (label, parent, confidence, reason) => ({ label, parent, confidence, reason });
  const best = probabilities.indexOf(Math.max(...probabilities)), top = probabilities[best];
  if (point.scope_threshold != null && !(score <= point.scope_threshold)) return answer("unknown", null, top, "out_of_scope");
  const { label, parent } = bundle.labels[best];
  if (top >= point.leaf_threshold) return answer(label, parent, top, "leaf");
  const sums = new Map();
  bundle.labels.forEach((one, i) => sums.set(one.parent, (sums.get(one.parent) ?? 0) + probabilities[i]));
  const [broad, sum] = [...sums].reduce((a, b) => (b[1] > a[1] ? b : a));
  return sum >= point.parent_threshold ? answer(broad, broad, sum, "parent") : answer("unknown", null, top, "doubtful");
}

export class Cascade {
  /** `ort`: onnxruntime-node or -web; `get(name)`: the bytes of a file of the bundle, as a Uint8Array. */
  static async load(ort, get) {
    const self = Object.assign(new Cascade(), { ort, get, sessions: {} });
    self.bundle = JSON.parse(new TextDecoder().decode(await get("bundle.json")));
    if (self.bundle.format_version !== 1) throw new Error(`format version ${self.bundle.format_version} is not known here`);
    const { general, experts } = self.bundle.stages;
    self.specs = [general, ...experts].map((stage) => stage.input);
    await self.session(general);
    return self;
  }

  /** A graph is loaded when it is first needed. */
  session(stage) {
    return (this.sessions[stage.file] ??= this.get(stage.file).then((bytes) => this.ort.InferenceSession.create(bytes)));
  }

  floats(values, width) {
    return new this.ort.Tensor("float32", Float32Array.from(values), [1, width]);
  }

  /** Upright RGB of any size -> answer. */
  async classify(image, ask = "router") {
    if (!(image.width > 0 && image.height > 0) || image.data.length !== image.width * image.height * 3)
      throw new Error("a photo needs width, height and width * height * 3 bytes of RGB");
    const reduced = reduce(image, reductionFactor(image, this.specs));
    const made = new Map();
    return this.run((spec) => {
      const key = JSON.stringify(spec);
      if (!made.has(key)) made.set(key, prepare(reduced, spec));
      return made.get(key);
    }, ask);
  }

  /** `pixelsOf(input of a stage, stage)`: its prepared pixels. */
  async run(pixelsOf, ask = "router") {
    const { general, scope, router, experts, arbiter } = this.bundle.stages;
    const point = this.bundle.operating_points.default;
    const feed = (stage, features) => {
      if (stage.takes === "features") return { features };
      const { width, height, data } = pixelsOf(stage.input, stage);
      return { image: new this.ort.Tensor("uint8", data, [1, height, width, 3]) };
    };
    const first = await (await this.session(general)).run(feed(general));
    const known = { general_logits: first.logits };
    const score = scope ? (await (await this.session(scope)).run({ ...known, embedding: first.embedding })).score.data[0] : null;
    let gain = experts.map(() => 0);
    if (router) gain = [...(await (await this.session(router)).run(known)).gain.data];
    const asked = experts.map((e, i) => ask === "always" || (ask === "router" && gain[i] > point.cost_weight * e.cost));
    const expertLogits = {};
    for (const [i, expert] of experts.entries()) {
      const nothing = this.floats(new Array(expert.labels.length).fill(0), expert.labels.length);
      const said = asked[i] ? (await (await this.session(expert)).run(feed(expert, first.features))).logits : nothing;
      known[`${expert.name}_logits`] = expertLogits[expert.name] = said;
    }
    if (experts.length) known.asked = this.floats(asked.map(Number), experts.length);
    const probabilities = [...(await (await this.session(arbiter)).run(known)).probabilities.data];
    const names = experts.filter((_, i) => asked[i]).map((e) => e.name);
    return { ...decide(this.bundle, point, probabilities, score), asked: names, probabilities, score, logits: [...first.logits.data], gain };
  }
}
