// The page of one instance: its picture, its history and the moment that is shown.
//
// The server renders every part. Here: moving among moments (links `data-moment`, the slider, the
// keys [ and ]), lighting up the picture, and following the instance while it moves.

import { attach } from "../flow/flow.js";
import { openDialog } from "../site/js/dialogs.js";
import { isHeld } from "../site/js/live.js";
import "./tree.js";
import { follow } from "./follow.js";
import { History } from "./history.js";
import { ask, released, show as showParts } from "./parts.js";
import { openSend, prepareSend } from "./send.js";

const MOVE_MS = 60; // a state that follows another sooner is not seen anyway
const REFRESH_MS = 250; // at most four times a second, however fast the instance moves
const REFRESH_MS_MAX = 2000;
const BUSY_SHARE_MAX = 0.2; // of the time; the rest is for whoever reads and clicks
const ANNOUNCE_MS = 1000;
const KEPT_PARAMETERS = ["tab", "view", "event", "source", "lanes"]; // of the address, from moment to moment

const page = document.querySelector("[data-instance-page]");
const pictureBox = page.querySelector("[data-picture]");
const announcer = page.querySelector("[data-announce]");

let shown = readLights();
let newest = Number(page.querySelector("[data-of]").textContent);
let latestMove = null; // of the socket, waiting for the next frame
let shownAt = 0;
let announcedAt = 0;
let picture = findPicture(); // null until it has come, and of a machine that can't be described
const timeline = new History(page, () => shown.seq);

showLights();
timeline.reveal(shown.seq);
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
  const here = new URLSearchParams(location.search);
  for (const name of KEPT_PARAMETERS) {
    if (here.has(name) && !url.searchParams.has(name)) url.searchParams.set(name, here.get(name));
  }
  history.pushState(null, "", url);
  return load(url);
}

async function load(url, { kept = [], isLive = false } = {}) {
  const at = Number(url.searchParams.get("at")) || newest;
  const asked = new URL(url);
  asked.searchParams.set("blocks", timeline.wanted(at, isLive));
  const response = await ask(`${page.dataset.url}/moment${asked.search}`);
  if (response === null) return;
  const html = await response.text();
  await released();
  const blocks = showParts(html, kept);
  shown = readLights();
  const told = Number(page.querySelector("[data-of]").textContent); // the socket may know of more
  newest = Math.max(newest, told);
  timeline.take(blocks, told);
  if (pictureBox.dataset.version !== String(shown.version)) await changePicture();
  showLights();
  if (!isLive) timeline.reveal(shown.seq);
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
  timeline.mark();
}

// ---------------------------------------------------------------- the picture

function findPicture() {
  const panel = pictureBox.querySelector("[data-flow-panel]");
  pictureBox.dataset.version = panel?.dataset.version ?? pictureBox.dataset.version;
  return panel?.querySelector("[role=tree]") ? attach(panel) : null;
}

/** Another version ran at this moment, or the picture has just been drawn. */
async function changePicture() {
  pictureBox.dataset.version = String(shown.version); // also if it can't be had: not again and again
  if (!shown.picture) return;
  const view = new URLSearchParams(location.search).get("view") ?? "";
  const target = pictureBox.querySelector(".canvas");
  await htmx.ajax("GET", `${shown.picture}?view=${encodeURIComponent(view)}`, { target, swap: "innerHTML" });
}

pictureBox.addEventListener("htmx:afterSettle", () => {
  const before = picture;
  picture = findPicture();
  if (picture === before) return;
  if (Object.keys(shown.next).length === 0 && !shown.past) load(new URL(location.href)); // they are known by now
  else light(shown);
});

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
    const isRead = document.getElementById("panel").contains(document.activeElement);
    await load(shown.past ? new URL(location.href) : addressOfNow(), { kept: isRead ? ["panel"] : [], isLive: true });
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
    if (latestMove === null) setTimeout(() => requestAnimationFrame(showMove), shownAt + MOVE_MS - performance.now());
    latestMove = state;
  },
  behind(seq) {
    newest = Math.max(newest, seq);
    if (!isHeld() && newest > shown.seq) refresh();
  },
  deleted() {
    location.reload();
  },
});

// The socket tells of this server's commits; what another server commits is found here, and what
// else has changed: a pause, a timer.
document.body.addEventListener("tick", () => {
  if (!refreshing) refresh();
});

function showMove() {
  shownAt = performance.now();
  const state = latestMove;
  latestMove = null;
  page.querySelector("[data-of]").textContent = String(newest);
  if (!shown.past) {
    announce(shown.active, state.active);
    shown = { ...shown, seq: state.seq, active: state.active, taken: null, next: {} };
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

pictureBox.addEventListener("flow:views", ({ detail }) => {
  if (detail.view === "diagram") picture.fitReadable();
  const url = new URL(location.href);
  if (detail.view === "tree") url.searchParams.set("view", "tree");
  else url.searchParams.delete("view");
  history.replaceState(null, "", url);
});

// ---------------------------------------------------------------- sending from the picture

document.addEventListener("htmx:afterSwap", (event) => {
  const outcome = event.detail.target.querySelector?.(":scope > [data-preview]");
  if (outcome) light({ ...shown, taken: null, preview: JSON.parse(outcome.dataset.preview) });
});

document.getElementById("send").addEventListener("close", () => light({ ...shown, taken: null }));

const asked = new URLSearchParams(location.search);
if (asked.has("send") && !shown.past) openSend("");
if (asked.has("upgrade") && !shown.past) openDialog(document.getElementById("upgrade"));

pictureBox.addEventListener("flow:send", (event) => openSend(shown.next[event.detail.transition] ?? ""));
