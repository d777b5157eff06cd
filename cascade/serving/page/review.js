// A finished run: filters, grid, one large photo, keys, corrections that are written at once.

import { call, make, percent, post, say, words } from "./api.js";
import { Grid } from "./grid.js";
import { Single } from "./single.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 5000;
const MOST_ROWS = 300;
const ENOUGH = 30; // photos looked at, before a promise is judged

const rows = new Map(); // id -> what a tile shows
const asked = new Set();
let about, grid, single, last = 0;
let writing = Promise.resolve(); // changes go out one after the other, in the order of the keys

function reviewer() {
  const field = $("reviewer");
  if (!field.value.trim()) field.value = localStorage.getItem("reviewer") || `reviewer-${crypto.randomUUID().slice(0, 4)}`;
  localStorage.setItem("reviewer", field.value.trim());
  return field.value.trim();
}

function failed(error) {
  say(error.message, true);
}

// ---- rows

async function want(ids) {
  const missing = ids.filter((id) => !asked.has(id)).slice(0, MOST_ROWS);
  if (!missing.length) return;
  missing.forEach((id) => asked.add(id));
  try {
    know((await call(`/v1/review/rows?ids=${missing.join(",")}`)).rows);
  } catch (error) {
    missing.forEach((id) => asked.delete(id));
    failed(error);
  }
}

function know(list) {
  for (const row of list) { rows.set(row.id, row); asked.add(row.id); }
  grid.draw();
  if (single.dialog.open && rows.has(single.id)) single.state(rows.get(single.id));
}

// ---- figures

function figures(progress) {
  last = progress.last;
  const { open, accepted, corrected } = progress.counts.state;
  const all = open + accepted + corrected;
  const parts = [make("span", {}, make("b", {}, (accepted + corrected).toLocaleString()), ` of ${all.toLocaleString()} reviewed, `,
    make("b", {}, corrected.toLocaleString()), " wrong")];
  const found = progress.accuracy;
  if (found) {
    const range = (low, high) => `${percent(low)} to ${percent(high)}`;
    parts.push(make("span", { title: "Estimated for every answered photo of the run, from those that were looked at one by one; 95 % interval" },
      "right answers: ", make("b", {}, percent(found.value)), ` (${range(found.low, found.high)}, from ${found.looked_at.toLocaleString()})`));
    if (progress.promised_error !== null) {
      const [least, most] = [1 - found.high, 1 - found.low];
      const verdict = found.looked_at < ENOUGH ? "too few to tell" : most <= progress.promised_error ? "kept here" : least > progress.promised_error ? "broken here" : "cannot be told yet";
      parts.push(make("span", {}, `promise: at most ${percent(progress.promised_error)} wrong; here ${range(least, most)}: `, make("b", {}, verdict)));
    }
  } else {
    parts.push(make("span", { className: "quiet" }, "look at some photos, and their share of right answers stands here"));
  }
  $("figures").replaceChildren(...parts);
  const form = $("filter-form");
  options(form.elements.label, "all labels", progress.counts.label);
  options(form.elements.route, "anybody", progress.counts.route);
}

function options(select, any, counts) {
  const chosen = select.value;
  const known = Object.keys(counts);
  select.replaceChildren(new Option(any, ""), ...known.map((name) => new Option(`${words(name)} (${counts[name].toLocaleString()})`, name)));
  if (chosen && !known.includes(chosen)) select.append(new Option(`${words(chosen)} (0)`, chosen));
  select.value = chosen;
}

// ---- filters

function filter() {
  return Object.fromEntries([...new FormData($("filter-form"))].filter(([, value]) => value !== ""));
}

async function select() {
  try {
    const { ids } = await call(`/v1/review/photos?${new URLSearchParams(filter())}`);
    grid.show(ids);
    $("shown").textContent = ids.length ? `${ids.length.toLocaleString()} photos` : "No photo passes these filters.";
    sessionStorage.setItem("filter", JSON.stringify(filter()));
  } catch (error) { failed(error); }
}

// ---- moving and saying

function show() {
  const { ids, current } = grid;
  if (!ids.length) return;
  single.show(ids[current], rows.get(ids[current]), ids.slice(current + 1, current + 4)).catch(failed);
}

function go(steps) {
  grid.select(grid.current + steps);
  if (single.dialog.open) show();
}

/** Say what the current photo shows, null that its answer is right, and go to the next one. */
function act(label) {
  const id = grid.ids[grid.current];
  if (id === undefined) return;
  const at = grid.current;
  const wasLast = at === grid.ids.length - 1;
  go(1);
  if (wasLast) say("That was the last photo of these filters.");
  writing = writing.then(async () => {
    if (!rows.has(id)) know((await call(`/v1/review/rows?ids=${id}`)).rows);
    const row = rows.get(id);
    try {
      const answer = await post("/v1/review/changes", { reviewer: reviewer(), changes: [{ id, label, seen: row.state?.id || 0 }] });
      know(answer.rows);
      figures(answer.progress);
      const now = rows.get(id).state;
      say(`${now.label === "unknown" ? "not a place we know" : words(now.label)}`);
    } catch (error) {
      know((await call(`/v1/review/rows?ids=${id}`)).rows);
      grid.select(at);
      if (single.dialog.open) show();
      failed(error);
    }
  }).catch(failed);
}

function undo(batch) {
  writing = writing.then(async () => {
    const answer = await post("/v1/review/undo", { reviewer: reviewer(), ...(Number.isInteger(batch) ? { batch } : {}) });
    if (!answer.changed) { say("There is nothing of yours to take back."); return; }
    if (answer.changed > answer.rows.length) forget();
    know(answer.rows);
    figures(answer.progress);
    say(answer.changed === 1 ? "taken back" : `${answer.changed.toLocaleString()} taken back`);
    const at = answer.changed === 1 ? grid.ids.indexOf(answer.rows[0].id) : -1;
    if (at >= 0) { grid.select(at); if (single.dialog.open) show(); }
  }).catch(failed);
}

function forget() {
  rows.clear();
  asked.clear();
  grid.draw();
}

async function guessed(place) {
  const id = grid.ids[grid.current];
  if (id === undefined) return;
  try {
    const found = (await single.guessesOf(id))[place];
    if (found) act(found.label); else say(`There is no guess ${place + 1}.`);
  } catch (error) { failed(error); }
}

// ---- keys

const MOVES = {
  ArrowLeft: () => -1, ArrowRight: () => 1,
  ArrowUp: () => (single.dialog.open ? -1 : -grid.perRow), ArrowDown: () => (single.dialog.open ? 1 : grid.perRow),
  PageUp: () => -grid.perRow * grid.perPage, PageDown: () => grid.perRow * grid.perPage,
  Home: () => -Infinity, End: () => Infinity,
};

function onKey(event) {
  if ($("review").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const other = document.querySelector("dialog[open]:not(#single)");
  const typing = event.target.matches("input, select, textarea");
  // Space and Enter on a button press that button.
  const pressing = event.target.matches("button, a, summary") && [" ", "Enter"].includes(event.key);
  if (other || typing || pressing) return;
  const key = event.key;
  const label = about.labels.find((one) => one.key === key);
  if (MOVES[key]) go(Math.max(-grid.ids.length, Math.min(grid.ids.length, MOVES[key]())));
  else if (key === " ") act(null);
  else if (key === "x") act("unknown");
  else if (key === "u") undo();
  else if (key === "?") $("keys").showModal();
  else if (key === "/") { if (!single.dialog.open) show(); single.finder.focus(); }
  else if (key === "Enter" && !single.dialog.open) show();
  else if (/^[1-9]$/.test(key)) guessed(Number(key) - 1);
  else if (label) act(label.label);
  else return;
  event.preventDefault();
}

// ---- beginning

async function history() {
  try {
    const { batches } = await call("/v1/review/history");
    $("batches").replaceChildren(...batches.map((one) => {
      const what = one.photos > 1 ? `${one.photos.toLocaleString()} photos accepted unseen` : `${one.path}: ${words(one.label)}`;
      const button = make("button", { type: "button" }, "Undo");
      button.addEventListener("click", () => { undo(one.batch); button.disabled = true; });
      return make("li", {}, `${what} `, make("span", { className: "quiet" }, `${one.reviewer}, ${new Date(one.time).toLocaleString()} `), button);
    }));
    if (!batches.length) $("batches").append(make("li", {}, "Nothing has been said yet."));
    $("history").showModal();
  } catch (error) { failed(error); }
}

async function poll() {
  if (document.hidden || $("review").hidden) return;
  try {
    const answer = await call(`/v1/review/since/${last}`);
    if (!answer.changed) return;
    if (answer.changed > answer.rows.length) forget();
    know(answer.rows);
    figures(answer.progress);
  } catch { /* the next change says it aloud */ }
}

function acceptAbove(event) {
  event.preventDefault();
  const confidence = Number($("accept-form").elements.confidence.value);
  writing = writing.then(async () => {
    const answer = await post("/v1/review/accept", { reviewer: reviewer(), confidence, filter: filter() });
    forget();
    figures(answer.progress);
    say(`${answer.changed.toLocaleString()} accepted; u takes them back together`);
  }).catch(failed);
}

async function folders() {
  try {
    const { folder, counts } = await post("/v1/review/folders", {});
    const done = Object.entries(counts).map(([what, count]) => `${what} ${count.toLocaleString()}`).join(", ");
    say(`${folder}: ${done || "nothing yet"}`);
  } catch (error) { failed(error); }
}

/** Show the run, if there is one; returns whether there is. */
export async function startReview() {
  try {
    about = await call("/v1/review");
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
  $("run-name").textContent = `${about.name} ${about.note}`;
  grid = new Grid($("grid"), $("canvas"), { rowOf: (id) => rows.get(id), want, open: show });
  single = new Single(about.labels, { act, go, undo: () => undo(), closed: () => { grid.draw(); $("grid").focus(); } });
  const form = $("filter-form");
  form.elements.order.replaceChildren(...Object.entries(about.orders).map(([name, text]) => new Option(text, name)));
  figures(await call("/v1/review/progress"));
  const kept = JSON.parse(sessionStorage.getItem("filter") || "{}");
  for (const [name, value] of Object.entries(kept)) if (form.elements[name]) form.elements[name].value = value;
  let later = 0;
  form.addEventListener("input", () => { clearTimeout(later); later = setTimeout(select, 150); });
  form.addEventListener("submit", (event) => event.preventDefault());
  $("accept-form").addEventListener("submit", acceptAbove);
  $("reviewer").addEventListener("change", reviewer);
  $("show-history").addEventListener("click", history);
  $("show-keys").addEventListener("click", () => $("keys").showModal());
  $("folders").addEventListener("click", folders);
  document.addEventListener("keydown", onKey);
  if (matchMedia("(max-width: 45rem)").matches) $("filters").open = false;
  reviewer();
  setInterval(poll, POLL_MS);
  await select();
  return true;
}

/** Called when the view becomes visible: sizes are known only now. */
export function enterReview() {
  grid.measure();
  grid.draw();
  $("grid").focus({ preventScroll: true });
}
