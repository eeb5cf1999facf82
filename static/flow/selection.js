// One selection for the picture and its twin tree, by pointer and by keys.

import { byName } from "./chart.js";

/**
 * @param chart the Chart
 * @param {HTMLElement | null} tree its twin
 */
export function attachSelection(chart, tree) {
  const items = byName(tree, "data-node"), sentences = byName(tree, "data-transition");
  let selected = {};

  /** @param {{path?: string, transition?: number | string}} what nothing: no selection */
  function select(what) {
    selected = what;
    paint();
    chart.tell("flow:select", what);
  }

  function paint() {
    for (const element of chart.svg.querySelectorAll(".is-selected")) {
      element.classList.remove("is-selected");
    }
    for (const item of tree?.querySelectorAll('[aria-selected="true"]') ?? []) {
      item.setAttribute("aria-selected", "false");
    }
    const { path, transition } = selected;
    const drawn = path === undefined ? chart.event(transition) : chart.state(path);
    const item = path === undefined ? sentences.get(String(transition)) : items.get(path);
    drawn?.classList.add("is-selected");
    item?.setAttribute("aria-selected", "true");
    if (item !== undefined) {
      focusable(item);
    }
  }

  /** One item is in the tab order. */
  function focusable(item) {
    for (const other of tree.querySelectorAll('[tabindex="0"]')) {
      other.tabIndex = -1;
    }
    item.tabIndex = 0;
  }

  chart.on("click", (event) => {
    const words = event.target.closest(".flow-event"), state = event.target.closest(".flow-state");
    if (event.target.closest(".flow-fold, .flow-map")) {
      return;
    }
    if (words?.classList.contains("is-next")) {
      chart.tell("flow:send", { transition: Number(words.dataset.transition) });
    } else if (words !== null) {
      select({ transition: Number(words.dataset.transition) });
    } else if (state !== null) {
      select({ path: state.dataset.node });
    }
  });
  chart.on("flow:drawn", paint);

  tree?.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (item !== null) {
      select(named(item));
    }
  });
  tree?.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    const move = item === null || event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key];
    if (move === undefined) {
      return;
    }
    event.preventDefault();
    const to = move(item, [...tree.querySelectorAll("[role=treeitem]")].filter(isVisible));
    if (to !== undefined && to !== null) {
      select(named(to));
      to.focus();
    }
  });
  tree?.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (event.key === "Enter" && item !== null) {
      const { transition, path } = named(item);
      if (item.classList.contains("is-next")) {
        chart.tell("flow:send", { transition });
      } else {
        chart.tell("flow:visit", path === undefined ? { transition } : { path });
      }
    }
  });

  return { select, selected: () => selected };
}

/** The tree pattern's keys: where each leads from an item; Left and Right also close and open. */
const KEYS = {
  ArrowDown: (item, visible) => visible[visible.indexOf(item) + 1],
  ArrowUp: (item, visible) => visible[visible.indexOf(item) - 1],
  Home: (_item, visible) => visible[0],
  End: (_item, visible) => visible.at(-1),
  ArrowRight(item) {
    if (item.getAttribute("aria-expanded") === "false") {
      item.setAttribute("aria-expanded", "true");
      return undefined;
    }
    return item.querySelector("[role=treeitem]");
  },
  ArrowLeft(item) {
    if (item.getAttribute("aria-expanded") === "true" && item.parentElement.getAttribute("role") !== "tree") {
      item.setAttribute("aria-expanded", "false");
      return undefined;
    }
    return item.parentElement.closest("[role=treeitem]");
  },
};

function isVisible(item) {
  return item.parentElement.closest('[role=treeitem][aria-expanded="false"]') === null;
}

function named(item) {
  return item.dataset.transition === undefined
    ? { path: item.dataset.node }
    : { transition: Number(item.dataset.transition) };
}
