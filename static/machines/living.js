// Drawings of versions, and the living one: how many instances are in each state. The numbers come
// with #overview, which refreshes itself; the drawing stays as it is. A badge leads to its
// instances, as does the row of the state beside the drawing.

import { attach } from "../flow/flow.js";

document.addEventListener("htmx:afterSettle", bringToLife);
document.addEventListener("pointerover", (event) => outline(event.target, true));
document.addEventListener("pointerout", (event) => outline(event.target, false));
document.addEventListener("click", (event) => {
  const badge = event.target.closest(".flow-badge");
  if (badge) rowOf(badge.closest("[data-node]").dataset.node)?.querySelector("a").click();
});
document.addEventListener("flow:select", ({ detail }) => {
  for (const row of document.querySelectorAll("[data-node-row]")) row.classList.remove("here");
  const row = detail.path ? rowOf(detail.path) : undefined;
  row?.classList.add("here");
  row?.scrollIntoView({ block: "nearest" });
});

bringToLife();

function bringToLife() {
  const panel = document.querySelector("[data-flow-panel]:has([data-flow])");
  if (!panel) return;
  const flow = attach(panel);
  const data = document.getElementById("state-counts");
  if (!data) return;
  const counts = Object.entries(JSON.parse(data.textContent)).filter(([path]) => path !== "");
  flow.decorate({ badges: Object.fromEntries(counts.map(([path, n]) => [path, inWords(n)])) });
}

function inWords(count) {
  return count > 9999 ? `${Math.floor(count / 1000)} k` : count.toLocaleString("en");
}

function rowOf(path) {
  return [...document.querySelectorAll("[data-node-row]")].find((row) => row.dataset.nodeRow === path);
}

/** The state of the row under the pointer is outlined in the drawing. */
function outline(target, isOn) {
  const row = target.closest?.("[data-node-row]");
  if (!row) return;
  for (const node of document.querySelectorAll("[data-flow] .flow-state")) {
    if (node.dataset.node === row.dataset.nodeRow) node.classList.toggle("is-selected", isOn);
  }
}
