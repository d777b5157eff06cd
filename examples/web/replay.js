// Replays the golden files of a bundle: prepared pixels -> decision, and file -> decision.
import { prepare, reduce, reductionFactor } from "./cascade.js";

const farthest = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));

/**
 * `decode(name)`: a file of golden/ as upright RGB. `exact`: whether the decoder gives the very pixels of lossless
 * files (a browser may convert colours). Returns what differs, in words; empty is well.
 */
export async function replay(cascade, decode, exact = true) {
  const golden = JSON.parse(new TextDecoder().decode(await cascade.get("golden/golden.json")));
  const tolerance = golden.tolerance, problems = [];
  const check = (ok, text) => ok || problems.push(text);
  let compared = 0;
  for (const entry of golden.photos) {
    const ready = {};
    for (const file of new Set(Object.values(entry.prepared))) ready[file] = await decode(file);
    for (const ask of ["never", "router", "always"]) {
      const wanted = entry.decisions[ask], found = await cascade.run((_, stage) => ready[entry.prepared[stage.name ?? "general"]], ask);
      const where = `${entry.photo}, ${ask}`;
      compared++;
      check(farthest(found.logits, entry.general_logits) <= tolerance.logits, `${where}: logits`);
      if (found.score !== null)
        check(Math.abs(found.score - entry.scope_score) <= tolerance.score_relative * Math.abs(entry.scope_score) + 1e-6, `${where}: score`);
      if (ask === "router") check(farthest(found.gain, entry.gain) <= tolerance.probabilities, `${where}: gain`);
      if (ask === "router" && wanted.margin <= tolerance.probabilities) continue;
      check(farthest(found.probabilities, entry[`probabilities_${ask}`]) <= tolerance.probabilities, `${where}: probabilities`);
      const same = found.label === wanted.label && found.reason === wanted.reason && found.asked.join() === wanted.asked.join();
      check(same || wanted.margin <= tolerance.probabilities, `${where}: ${found.label}, not ${wanted.label}`);
    }
    const image = await decode(entry.photo);
    check(image.width === entry.size[0] && image.height === entry.size[1], `${entry.photo}: size`);
    const factor = reductionFactor(image, cascade.specs), reduced = reduce(image, factor);
    check(factor === entry.reduction && reduced.width === entry.decoded_size[0] && reduced.height === entry.decoded_size[1], `${entry.photo}: reduction`);
    const { data } = prepare(reduced, cascade.specs[0]), expected = ready[entry.prepared.general].data;
    let sum = 0, most = 0;
    for (let i = 0; i < data.length; i++) {
      const away = Math.abs(data[i] - expected[i]);
      sum += away;
      most = Math.max(most, away);
    }
    check(sum / data.length <= tolerance.file_pixels_mean, `${entry.photo}: pixels differ by ${(sum / data.length).toFixed(2)} on average`);
    if (exact && entry.photo.endsWith(".png")) check(most <= tolerance.pixels, `${entry.photo}: a pixel differs by ${most}`);
    const read = await cascade.classify(image, "always");
    check(farthest(read.probabilities, entry.probabilities_always) <= tolerance.file_probabilities, `${entry.photo}: probabilities from the file`);
    compared++;
  }
  check(compared > 0, "nothing was compared");
  return { compared, problems };
}
