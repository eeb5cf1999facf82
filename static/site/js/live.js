// The pill that says whether the page is live, how old it is, and that pauses it (key `.`).
//
// Parts of pages that refresh themselves say hx-trigger="tick from:body": they are asked for every
// 5 s while the page is seen and not paused. A page with a socket says `data-live-page` on its
// element and sends `live` events on the document: {state: "live"} for each message, {state: "lost"}.

const TICK_MS = 5000;
const AGE_EVERY_MS = 1000;

const pill = document.querySelector("[data-live]");
let held = false;
let lost = false;
let updatedAt = Date.now();

export function isHeld() {
  return held;
}

if (pill && document.querySelector('[data-live-page], [hx-trigger*="tick from:body"]')) {
  pill.hidden = false;
  pill.addEventListener("click", toggle);
  setInterval(render, AGE_EVERY_MS);
  setInterval(tick, TICK_MS);
  document.addEventListener("visibilitychange", () => document.hidden || tick());
  document.addEventListener("live", (event) => heard(event.detail.state !== "lost"));
  document.addEventListener("htmx:afterRequest", (event) => heard(event.detail.successful));
  document.addEventListener("htmx:sendError", () => heard(false));
  render();
}

function tick() {
  if (!held && !document.hidden) document.body.dispatchEvent(new CustomEvent("tick"));
}

function heard(wasGood) {
  lost = !wasGood;
  if (wasGood) updatedAt = Date.now();
  render();
}

function toggle() {
  held = !held;
  document.dispatchEvent(new CustomEvent("live:held", { detail: { held } }));
  render();
  if (!held) tick();
}

function render() {
  pill.classList.toggle("held", held);
  pill.classList.toggle("lost", lost && !held);
  pill.setAttribute("aria-pressed", String(held));
  pill.textContent = words();
}

function words() {
  const age = Math.round((Date.now() - updatedAt) / 1000);
  if (held) return `Paused · ${age} s`;
  if (lost) return `Connection lost · ${age} s`;
  return age < 2 * (TICK_MS / 1000) ? "Live" : `Live · ${age} s`;
}
