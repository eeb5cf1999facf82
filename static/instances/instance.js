// The page of one instance: its picture, its history and the moment that is shown.
//
// The server renders every part. Here: moving among moments (links `data-moment`, the slider, the
// keys [ and ]), lighting up the picture, and following the instance while it moves.

import { attach } from "../flow/flow.js";
import { isHeld } from "../site/js/live.js";
import "./timeline.js";
import "./tree.js";
import { follow } from "./follow.js";
import { activePaths } from "./states.js";
import { ask, released, show as showParts } from "./parts.js";
import { openSend, prepareSend } from "./send.js";

const REFRESH_MS = 250; // at most four times a second, however fast the instance moves
const REFRESH_MS_MAX = 2000;
const BUSY_SHARE_MAX = 0.2; // of the time; the rest is for whoever reads and clicks
const ANNOUNCE_MS = 1000;

const page = document.querySelector("[data-instance-page]");
const panel = page.querySelector("[data-flow-panel]");
const picture = panel.querySelector("[data-flow]") ? attach(panel) : null;
const timeline = document.getElementById("timeline");
const announcer = page.querySelector("[data-announce]");

let shown = readLights();
let newest = Number(page.querySelector("[data-of]").textContent);
let latestMove = null; // of the socket, waiting for the next frame
let announcedAt = 0;

showLights();
prepareSend();

// ---------------------------------------------------------------- moving among moments

page.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-moment]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  goTo(new URL(link.href));
});

page.addEventListener("input", (event) => {
  if (!event.target.matches("[data-scrub]")) return;
  page.querySelector("[data-at]").textContent = event.target.value;
});

page.addEventListener("change", (event) => {
  if (!event.target.matches("[data-scrub]")) return;
  goTo(addressOf({ at: event.target.value }));
});

page.addEventListener("keydown", (event) => {
  const tab = event.target.closest("[role='tab']");
  if (!tab || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  const tabs = [...tab.parentElement.children];
  const step = event.key === "ArrowRight" ? 1 : -1;
  tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].focus();
});

addEventListener("popstate", () => load(new URL(location.href)));

function addressOf(changes) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) url.searchParams.set(name, value);
  return url;
}

/** Whoever came to the newest moment by `]` follows from there, and is not left behind in it. */
function addressOfNow() {
  const url = addressOf({});
  if (url.searchParams.has("at")) {
    url.searchParams.delete("at");
    history.replaceState(null, "", url);
  }
  return url;
}

/** Shows the moment and tab that an address of this page names; the address says it from then on. */
function goTo(url) {
  if (!url.searchParams.has("tab")) url.searchParams.set("tab", shown.tab);
  const view = new URLSearchParams(location.search).get("view");
  if (view) url.searchParams.set("view", view);
  history.pushState(null, "", url);
  return load(url);
}

async function load(url, { kept = [] } = {}) {
  const at = Number(url.searchParams.get("at"));
  const [response] = await Promise.all([
    ask(`${page.dataset.url}/moment${url.search}`),
    at && !rowOf(at) ? loadAround(at) : null,
  ]);
  if (response === null) return;
  const html = await response.text();
  await released();
  showParts(html, kept);
  shown = readLights();
  if (picture && String(shown.version) !== panel.dataset.picture) location.reload(); // another picture
  newest = Math.max(newest, Number(page.querySelector("[data-of]").textContent));
  showLights();
  if (!rowOf(shown.seq)) await loadAround(shown.seq);
  markRow(shown.seq)?.scrollIntoView({ block: "nearest" });
}

function light({ active, taken, next, preview = [] }) {
  const transitions = Object.keys(next).map(Number);
  picture?.show({ active, taken: taken ?? undefined, next: transitions, preview });
}

function readLights() {
  return JSON.parse(document.getElementById("lights").dataset.lights);
}

function showLights() {
  light(shown);
  const isTimeline = shown.tab === "timeline";
  document.getElementById("timeline-panel").hidden = !isTimeline;
  document.getElementById("panel").hidden = isTimeline;
  markRow(shown.seq);
}

// ---------------------------------------------------------------- the timeline

function markRow(seq) {
  for (const row of timeline.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
  const row = rowOf(seq);
  row?.setAttribute("aria-current", "true");
  for (const other of timeline.querySelectorAll("[data-seq]")) {
    other.classList.toggle("later", Number(other.dataset.seq) > seq);
  }
  return row;
}

function rowOf(seq) {
  return timeline.querySelector(`[data-seq="${Number(seq)}"]`);
}

async function loadAround(seq) {
  const response = await ask(`${page.dataset.url}/rows?around=${seq}`);
  if (response !== null) timeline.replaceChildren(fragment(await response.text()));
}

function fragment(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content;
}

/** The newest row that is there, or 0. */
function newestRow() {
  return Number(timeline.querySelector("[data-seq]")?.dataset.seq ?? 0);
}

/** Whether there were any. */
async function addNewRows() {
  if (timeline.querySelector("[data-more='newer']")) return false; // it shows an older part
  const response = await ask(`${page.dataset.url}/rows?live=1&after=${newestRow()}`);
  if (response === null) return false;
  const rows = fragment(await response.text());
  await released();
  if (response.headers.get("X-Whole-List")) timeline.replaceChildren(rows);
  else timeline.prepend(rows);
  return true;
}

// ---------------------------------------------------------------- following the instance

let refreshing = false;
let refreshAgain = false;

async function refresh() {
  if (refreshing) {
    refreshAgain = true;
    return;
  }
  refreshing = true;
  do {
    refreshAgain = false;
    const startedAt = performance.now();
    await addNewRows();
    if (!shown.past) {
      const isRead = document.getElementById("panel").contains(document.activeElement);
      await load(addressOfNow(), { kept: isRead ? ["panel"] : [] });
    } else {
      markRow(shown.seq);
    }
    const tookMs = performance.now() - startedAt;
    const pauseMs = Math.max(REFRESH_MS - tookMs, tookMs * (1 / BUSY_SHARE_MAX - 1));
    await new Promise((resolve) => setTimeout(resolve, Math.min(pauseMs, REFRESH_MS_MAX)));
  } while (refreshAgain);
  refreshing = false;
}

follow(page.dataset, {
  moved(state) {
    newest = Math.max(newest, state.seq);
    if (isHeld()) return;
    if (latestMove === null) requestAnimationFrame(showMove);
    latestMove = state;
  },
  behind(seq) {
    newest = Math.max(newest, seq);
    if (!isHeld() && newest > Math.max(shown.past ? newestRow() : shown.seq, 0)) refresh();
  },
  deleted() {
    location.reload();
  },
});

// The socket tells of this server's commits; what another server commits is found here.
document.body.addEventListener("tick", async () => {
  if (!refreshing && (await addNewRows())) refresh();
});

function showMove() {
  const state = latestMove;
  latestMove = null;
  page.querySelector("[data-of]").textContent = String(newest);
  if (!shown.past) {
    const active = ["", ...activePaths(state.state)];
    announce(shown.active, active);
    shown = { ...shown, seq: state.seq, active, taken: null, next: {} };
    light(shown);
  }
  refresh();
}

/** Says "order-17: placed → paid" to screen readers, not more often than one can hear. */
function announce(before, after) {
  if (Date.now() - announcedAt < ANNOUNCE_MS) return;
  const left = before.filter((path) => !after.includes(path));
  const entered = after.filter((path) => !before.includes(path));
  if (entered.length === 0) return;
  announcedAt = Date.now();
  announcer.textContent = `${page.dataset.instance}: ${left.at(-1) ?? ""} → ${entered.at(-1)}`;
}

// ---------------------------------------------------------------- diagram or tree

page.addEventListener("click", (event) => {
  const button = event.target.closest("[data-show-view]");
  if (!button) return;
  for (const other of page.querySelectorAll("[data-show-view]")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  for (const view of page.querySelectorAll("[data-view]")) {
    view.hidden = view.dataset.view !== button.dataset.showView;
  }
  const isDiagram = button.dataset.showView === "diagram";
  panel.querySelector("[data-diagram-tools]").hidden = !isDiagram;
  if (isDiagram) picture.fit();
  const url = new URL(location.href);
  if (button.dataset.showView === "tree") url.searchParams.set("view", "tree");
  else url.searchParams.delete("view");
  history.replaceState(null, "", url);
});

// ---------------------------------------------------------------- sending from the picture

document.addEventListener("htmx:afterSwap", (event) => {
  const outcome = event.detail.target.querySelector?.(":scope > [data-preview]");
  if (outcome) light({ ...shown, taken: null, preview: JSON.parse(outcome.dataset.preview) });
});

document.getElementById("send").addEventListener("close", () => light({ ...shown, taken: null }));

if (new URLSearchParams(location.search).has("send") && !shown.past) openSend("");

panel.addEventListener("flow:send", (event) => openSend(shown.next[event.detail.transition] ?? ""));
