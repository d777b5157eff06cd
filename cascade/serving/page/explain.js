// Shows how an answer came about; the Try view and the single photo share it.

import { make, percent, words } from "./api.js";

const WHY = {
  parent: "No label is sure enough, but what they have in common is.",
  doubtful: "Neither a label nor a broader label is sure enough.",
  out_of_scope: "The photo is unlike every photo that the labels were learned from.",
};

/** Why an answer is not a label; "" if it is one. */
export function whyNotSure(row) {
  const why = WHY[row.reason];
  if (!why) return "";
  const [first, second] = row.top || [];
  if (!first || !second || row.reason === "out_of_scope") return why;
  return `${why} It may be ${words(first.label)} (${percent(first.probability)}) or ${words(second.label)} (${percent(second.probability)}).`;
}

/** One guess with a bar as long as its probability. */
export function guess(tag, label, probability, key = "") {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${100 * probability}%`;
  const name = make("span", {}, words(label), key ? " " : "");
  if (key) name.append(make("kbd", {}, key));
  return make(tag, { className: "guess" }, bar, name, make("span", {}, percent(probability)));
}

/** Fill a definition list with who was asked and what each said. */
export function fillRoute(list, row) {
  list.replaceChildren();
  const add = (name, text) => list.append(make("dt", {}, name), make("dd", {}, text));
  if (row.general) add("general", `${words(row.general.label)}, ${percent(row.general.confidence)}`);
  for (const expert of row.experts || []) {
    add(expert.name, expert.label === "not_mine" ? "not mine" : `${words(expert.label)}, ${percent(expert.confidence)}`);
  }
  if (row.experts && !row.experts.length) add("experts", "none was asked");
  if (row.ms && row.ms.total) {
    const parts = Object.entries(row.ms).filter(([stage]) => stage !== "total");
    add("time", `${row.ms.total.toFixed(0)} ms` + (parts.length ? ` (${parts.map(([s, ms]) => `${s} ${ms.toFixed(1)}`).join(", ")})` : ""));
  }
  for (const warning of row.warnings || []) add("warning", warning);
}
