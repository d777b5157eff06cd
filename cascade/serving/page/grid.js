// A list of any length of which only what is visible exists. Tiles are made while one scrolls.

import { make, percent, words } from "./api.js";

const AHEAD = 2; // rows beyond the edges

export class Grid {
  /** `rowOf(id)` gives what is known of a photo or undefined, `want(ids)` asks for the rest. */
  constructor(box, canvas, { rowOf, want, open }) {
    Object.assign(this, { box, canvas, rowOf, want, open, ids: [], current: 0, tiles: new Map() });
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => { this.measure(); this.draw(); }).observe(box);
    canvas.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (!tile) return;
      this.select(Number(tile.dataset.position), false);
      this.open();
    });
    this.measure();
  }

  measure() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const wide = Math.max(1, this.box.clientWidth);
    this.perRow = Math.max(2, Math.floor(wide / (12 * rem)));
    this.width = wide / this.perRow;
    this.height = Math.min(13 * rem, this.width * 1.15);
    this.perPage = Math.max(1, Math.floor(this.box.clientHeight / this.height));
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
  }

  show(ids, current = 0) {
    this.ids = ids;
    this.current = Math.min(current, Math.max(0, ids.length - 1));
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.box.scrollTop = 0;
    this.reveal();
    this.draw();
  }

  select(position, reveal = true) {
    this.current = Math.max(0, Math.min(position, this.ids.length - 1));
    if (reveal) this.reveal();
    this.draw();
  }

  reveal() {
    const top = Math.floor(this.current / this.perRow) * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + this.height - this.box.clientHeight;
    }
  }

  draw() {
    this.canvas.style.height = `${Math.ceil(this.ids.length / this.perRow) * this.height}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - AHEAD) * this.perRow;
    const rows = Math.ceil(this.box.clientHeight / this.height) + 2 * AHEAD + 1;
    const last = Math.min(this.ids.length, first + rows * this.perRow);
    for (const [position, tile] of this.tiles) {
      if (position < first || position >= last) { tile.remove(); this.tiles.delete(position); }
    }
    const unknown = [];
    for (let position = first; position < last; position++) {
      const id = this.ids[position];
      let tile = this.tiles.get(position);
      if (!tile) this.tiles.set(position, tile = this.tile(position, id));
      const row = this.rowOf(id);
      if (!row) unknown.push(id);
      else if (tile.shown !== row) this.fill(tile, row);
      tile.setAttribute("aria-selected", String(position === this.current));
      if (position === this.current) this.box.setAttribute("aria-activedescendant", tile.id);
    }
    if (unknown.length) this.want(unknown);
  }

  tile(position, id) {
    const picture = make("img", { alt: "", src: `/v1/review/photos/${id}/thumbnail`, decoding: "async" });
    picture.addEventListener("error", () => picture.classList.add("missing"));
    const text = make("figcaption", {});
    const tile = make("div", { className: "tile", id: `tile-${position}` }, make("figure", {}, picture, text));
    tile.setAttribute("role", "option");
    tile.setAttribute("aria-setsize", this.ids.length);
    tile.setAttribute("aria-posinset", position + 1);
    tile.dataset.position = position;
    tile.style.width = `${this.width}px`;
    tile.style.height = `${this.height}px`;
    tile.style.left = `${(position % this.perRow) * this.width}px`;
    tile.style.top = `${Math.floor(position / this.perRow) * this.height}px`;
    this.canvas.append(tile);
    return tile;
  }

  fill(tile, row) {
    const answer = row.answer === null ? "could not be read"
      : row.answer === "unknown" ? "unknown" : `${words(row.answer)} ${percent(row.confidence)}`;
    const said = stateText(row);
    tile.querySelector("figcaption").replaceChildren(make("span", {}, answer), make("span", { className: "said" }, said || "\u00a0"));
    tile.classList.toggle("accepted", row.right === true);
    tile.classList.toggle("corrected", row.right === false);
    tile.setAttribute("aria-label", `${row.path}: ${answer}${said ? `, ${said}` : ""}`);
    tile.shown = row;
  }
}

/** What people said about a photo, in words. */
export function stateText(row) {
  if (!row.state) return "";
  if (row.state.kind === "bulk") return "✓ accepted unseen";
  const name = row.state.label === "unknown" ? "not a place we know" : words(row.state.label);
  return row.right ? `✓ ${name}` : `→ ${name}`;
}
