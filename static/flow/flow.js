// Brings a statechart to life: a panel with the server's picture, its twin tree, and buttons.
//
//   <section data-flow-panel>
//     <div data-flow data-flow-src="…" data-flow-folded='["a"]' tabindex="0" aria-label="…"> <svg class="flow">…</svg> </div>
//     <button data-flow-do="fit">…  <input data-flow-find>  <output data-flow-found>  <output data-flow-zoom>
//     <ul role="tree" class="flow-tree">…</ul>
//   </section>
//
// Events on the panel: flow:select {path | transition}, flow:send {transition}, flow:fold {folded},
// flow:view {x, y, width, height, scale}, flow:views {view}, flow:error {message}. docs/diagrams.md describes them.

import { Chart } from "./chart.js";
import { attachFind } from "./find.js";
import { attachFolding } from "./fold.js";
import { attachLive } from "./live.js";
import { attachMinimap } from "./minimap.js";
import { savePng } from "./png.js";
import { attachSelection } from "./selection.js";
import { attachViewport } from "./viewport.js";
import { attachViews } from "./views.js";

const STEP = 1.25;
const READABLE = 0.35; // below this scale the whole picture says nothing
const OF_MANY = 0.8; // and at this one its active states are seen with what is around them
const attached = new WeakMap();

/** @returns what a page works with; the same object for the same panel */
export function attach(panel) {
  if (!attached.has(panel)) {
    attached.set(panel, panel.querySelector("[data-flow]") ? make(panel) : makeTree(panel));
  }
  return attached.get(panel);
}

/** Of a machine that is too large to draw there is the tree: it is lit up and walked through as well. */
function makeTree(panel) {
  const tree = panel.querySelector("[role=tree]");
  const chart = new Chart(tree.parentElement);
  const live = attachLive(chart, tree), selection = attachSelection(chart, tree);
  return { show: live.show, select: selection.select, fitReadable() {} };
}

function make(panel) {
  const chart = new Chart(panel.querySelector("[data-flow]"));
  const tree = panel.querySelector("[role=tree]");
  const viewport = attachViewport(chart);
  const live = attachLive(chart, tree);
  const selection = attachSelection(chart, tree);
  const folding = attachFolding(chart, viewport, tree);
  const { zoom, fit } = viewport;

  /** The active states, or everything if none is. */
  function fitActive(scaleMax) {
    const active = live.active().filter((path) => chart.state(path) !== undefined);
    const leaves = active.filter((path) => chart.state(path).classList.contains("is-leaf"));
    fit(leaves, scaleMax);
  }

  /** Everything, or the active states if everything would be too small to read. */
  function fitReadable() {
    fit();
    if (viewport.scale < READABLE) {
      fitActive(OF_MANY);
    }
  }

  let isFirst = true;

  function show(moment) {
    live.show(moment);
    if (isFirst) {
      fitReadable();
    }
    isFirst = false;
  }

  async function unfoldAll() {
    await folding.unfoldAll();
    fitReadable();
  }

  /** Open what hides a state or a transition, select it, and bring it into view. */
  async function visit({ path, transition }) {
    const source = path ?? sourceOf(tree, transition);
    await folding.reveal(source);
    selection.select(path === undefined ? { transition } : { path });
    fit([source]);
  }

  const actions = {
    "zoom-in": () => zoom(STEP),
    "zoom-out": () => zoom(1 / STEP),
    fit: () => fit(),
    "fit-active": () => fitActive(),
    unfold: unfoldAll,
    png: (button) => savePng(button.dataset.flowHref, button.dataset.flowName ?? "diagram.png", JSON.parse(button.dataset.flowFonts ?? "{}")),
  };
  panel.addEventListener("click", (event) => {
    const button = event.target.closest("[data-flow-do]");
    actions[button?.dataset.flowDo]?.(button);
  });
  chart.on("keydown", (event) => {
    if (event.key === "f" && event.target === chart.box && !event.ctrlKey && !event.metaKey) {
      fitActive();
    }
  });
  panel.addEventListener("flow:visit", (event) => visit(event.detail));
  chart.on("flow:view", ({ detail }) => {
    for (const output of panel.querySelectorAll("[data-flow-zoom]")) {
      output.textContent = `${Math.round(detail.scale * 100)} %`;
    }
  });
  chart.on("flow:fold", ({ detail }) => {
    for (const button of panel.querySelectorAll('[data-flow-do="unfold"]')) {
      button.hidden = detail.folded.length === 0;
    }
  });
  attachFind(panel, chart, tree, visit);
  attachViews(panel, chart);
  fit();
  attachMinimap(chart, viewport);

  return {
    show,
    decorate: live.decorate,
    select: selection.select,
    fold: folding.fold,
    unfoldAll: folding.unfoldAll,
    reveal: folding.reveal,
    fit,
    fitActive,
    fitReadable,
    zoom,
    visit,
  };
}

/** The state that a transition is written under in the tree. */
function sourceOf(tree, transition) {
  const sentence = [...(tree?.querySelectorAll("[data-transition]") ?? [])].find((item) => item.dataset.transition === String(transition));
  return sentence?.parentElement.closest("[data-node]")?.dataset.node ?? "";
}

for (const panel of document.querySelectorAll("[data-flow-panel]")) {
  if (panel.querySelector("[role=tree]")) attach(panel);
}
