// The two views, by the part of the address after #.

import { say } from "./api.js";
import { enterReview, startReview } from "./review.js";
import { startTry } from "./try.js";

const $ = (id) => document.getElementById(id);
let reviewing = false;

function view() {
  const name = reviewing && location.hash !== "#try" ? "review" : "try";
  for (const one of ["try", "review"]) {
    $(one).hidden = one !== name;
    const link = $(`to-${one}`);
    if (one === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (name === "review") enterReview();
}

startTry();
try {
  reviewing = await startReview();
} catch (error) {
  say(error.message, true);
}
$("to-review").hidden = !reviewing;
addEventListener("hashchange", view);
view();
document.documentElement.dataset.ready = "yes";
