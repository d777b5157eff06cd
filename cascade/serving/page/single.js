// One large photo with everything that is known about it, and a button for everything that has a key.

import { call, make, percent, words } from "./api.js";
import { fillRoute, guess, whyNotSure } from "./explain.js";
import { stateText } from "./grid.js";

const $ = (id) => document.getElementById(id);
const AHEAD = 3;

export class Single {
  /** `act(label)` says what the photo shows (null accepts), `go(steps)` moves, `undo()` takes back. */
  constructor(labels, { act, go, undo, closed }) {
    this.labels = labels;
    this.details = new Map();
    this.dialog = $("single");
    this.act = act;
    $("do-accept").addEventListener("click", () => act(null));
    $("do-unknown").addEventListener("click", () => act("unknown"));
    $("do-undo").addEventListener("click", undo);
    $("do-previous").addEventListener("click", () => go(-1));
    $("do-next").addEventListener("click", () => go(1));
    $("do-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", closed);
    // After a click with the mouse, keys mean the photo again, not the button.
    this.dialog.addEventListener("click", (event) => {
      if (event.detail > 0 && event.target.closest("button")) this.dialog.focus();
    });
    this.finder = $("find-label");
    this.finder.addEventListener("input", () => this.showLabels());
    this.finder.addEventListener("keydown", (event) => this.find(event));
  }

  find(event) {
    if (event.key === "Enter") {
      const first = this.matching()[0];
      event.preventDefault();
      if (first && this.finder.value) {
        this.leaveFinder();
        this.act(first.label);
      }
    } else if (event.key === "Escape") {
      event.preventDefault();
      this.leaveFinder();
    } else return;
    event.stopPropagation();
  }

  leaveFinder() {
    this.finder.value = "";
    this.showLabels();
    this.dialog.focus();
  }

  matching() {
    const wanted = this.finder.value.trim().toLowerCase();
    const name = ({ label }) => words(label).toLowerCase();
    const found = this.labels.filter((one) => name(one).includes(wanted));
    return found.sort((a, b) => name(b).startsWith(wanted) - name(a).startsWith(wanted));
  }

  /** What is known about a photo; asked for once. */
  detail(id) {
    if (!this.details.has(id)) {
      const asked = call(`/v1/review/photos/${id}`).catch((error) => { this.details.delete(id); throw error; });
      this.details.set(id, asked);
      if (this.details.size > 500) this.details.delete(this.details.keys().next().value);
    }
    return this.details.get(id);
  }

  async guessesOf(id) {
    const { row } = await this.detail(id);
    return row.top || [];
  }

  async show(id, row, ahead) {
    this.id = id;
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.focus(); // so that space accepts; on a button it presses the button
    }
    const large = $("large");
    large.src = `/v1/review/photos/${id}/image`;
    const { row: whole } = await this.detail(id);
    if (this.id !== id) return; // somebody has moved on
    this.state(row);
    large.alt = `The photo ${whole.path}`;
    $("single-path").textContent = whole.path;
    const answer = whole.error ? `could not be read: ${words(whole.error.code)}` : words(whole.label);
    const sure = typeof whole.confidence === "number" && whole.label !== "unknown" ? ` ${percent(whole.confidence)}` : "";
    $("single-answer").textContent = answer + sure;
    $("guesses").replaceChildren(...(await this.guessesOf(id)).slice(0, 9).map((one, place) => {
      const button = guess("button", one.label, one.probability, String(place + 1));
      button.type = "button";
      button.addEventListener("click", () => this.act(one.label));
      return make("li", {}, button);
    }));
    fillRoute($("route"), whole);
    const why = whyNotSure(whole);
    if (why) $("route").append(make("dt", {}, "why"), make("dd", {}, why));
    this.showLabels();
    for (const next of ahead.slice(0, AHEAD)) {
      this.detail(next).catch(() => {});
      new Image().src = `/v1/review/photos/${next}/image`;
    }
  }

  /** Show what people said about the photo. */
  state(row) {
    this.row = row;
    const said = row && stateText(row);
    $("single-state").textContent = said ? `${said} (${row.state.reviewer})` : "nobody has looked at it yet";
    this.showLabels();
  }

  showLabels() {
    const chosen = this.row?.state?.label;
    $("all-labels").replaceChildren(...this.matching().map(({ label, key }) => {
      const button = make("button", { type: "button" }, words(label));
      if (key) button.append(" ", make("kbd", {}, key));
      button.setAttribute("aria-pressed", String(label === chosen));
      button.addEventListener("click", () => this.act(label));
      return button;
    }));
  }
}
