// Talks to the service; asks for the token where one is needed.

const message = document.getElementById("message");
let hide = 0;

/** Show a line to everybody, screen readers too; errors stay longer. */
export function say(text, bad = false) {
  const open = document.querySelector("dialog[open]") || document.body;
  open.append(message); // above an open dialog
  message.textContent = text;
  message.classList.toggle("bad", bad);
  clearTimeout(hide);
  hide = setTimeout(() => { message.textContent = ""; }, bad ? 8000 : 2500);
}

/** A refusal of the service: `problem` is its body, RFC 9457. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.error || `the service answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function askForToken() {
  const dialog = document.getElementById("ask-token");
  const wrong = document.getElementById("token-wrong");
  for (;;) {
    if (!dialog.open) dialog.showModal();
    await new Promise((done) => document.getElementById("token-form").addEventListener("submit", done, { once: true }));
    const answer = await fetch("/v1/session", { method: "POST", body: document.getElementById("token").value });
    if (answer.ok) return;
    wrong.textContent = "This is not the token of this service.";
  }
}

let asking = null;

/** Send a request and return what came back as JSON. */
export async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal(0, { detail: "the service does not answer; is it still running?" });
  }
  if (answer.status === 401) {
    asking ??= askForToken().finally(() => { asking = null; });
    await asking;
    return call(path, options);
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, body);
  return body;
}

/** Send JSON. */
export function post(path, body) {
  return call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** Make an element: `make("p", {className: "quiet"}, "text", child)`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)} %`;
export const words = (label) => label.replaceAll("_", " ");
