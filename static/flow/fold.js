// Opens and closes states: the server draws each choice once and stores it; here the picture is
// replaced, and what was clicked stays where it is on the screen.

import { isInside } from "./live.js";

/**
 * @param chart the Chart; data-flow-src says where pictures come from (`?fold=…` for each
 *        state, and `outer=TB` or `LR`), data-flow-folded which states are closed, as a JSON list of paths
 * @param viewport of attachViewport
 * @param {HTMLElement | null} tree its twin: + opens and - closes the state of an item
 */
export function attachFolding(chart, viewport, tree) {
  let folded = JSON.parse(chart.box.dataset.flowFolded ?? "[]");
  let request = new AbortController();

  /** Show the picture with these states closed. `anchor` is a path that stays in its place. */
  async function fold(paths, anchor) {
    const address = new URL(chart.box.dataset.flowSrc, document.baseURI);
    address.searchParams.delete("fold");
    for (const path of paths.length > 0 ? paths : [""]) { // without any, the server would choose
      address.searchParams.append("fold", path);
    }
    address.searchParams.set("outer", chart.svg.dataset.direction.slice(0, 2)); // do not turn it over
    request.abort();
    request = new AbortController();
    try {
      const answer = await fetch(address, { signal: request.signal });
      if (!answer.ok) {
        throw new Error(`the picture could not be drawn (${answer.status})`);
      }
      const drawn = new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
      if (drawn.localName !== "svg") {
        throw new Error("the answer is not a picture");
      }
      const before = chart.bounds(anchor);
      folded = paths;
      chart.replace(document.importNode(drawn, true));
      keepInPlace(before, chart.bounds(anchor));
      chart.tell("flow:fold", { folded });
    } catch (error) {
      if (error.name !== "AbortError") {
        chart.tell("flow:error", { message: error.message });
      }
    }
  }

  function keepInPlace(before, after) {
    const { middle } = viewport;
    if (before !== undefined && after !== undefined) {
      viewport.look({ x: middle.x + after.x - before.x, y: middle.y + after.y - before.y });
    } else {
      viewport.fit();
    }
  }

  function toggle(path) {
    const without = folded.filter((one) => one !== path && !isInside(one, path));
    return fold(folded.includes(path) ? without : [...without, path], path);
  }

  /** Open whatever hides a state. */
  async function reveal(path) {
    const open = folded.filter((one) => !isInside(path, one));
    if (open.length < folded.length) {
      await fold(open, folded.find((one) => isInside(path, one)));
    }
  }

  chart.on("click", (event) => {
    const sign = event.target.closest(".flow-fold");
    if (sign !== null) {
      toggle(sign.closest(".flow-state").dataset.node);
    }
  });
  chart.on("dblclick", (event) => {
    const state = event.target.closest(".flow-state");
    if (state?.querySelector(":scope > .flow-fold")) {
      toggle(state.dataset.node);
    }
  });

  tree?.addEventListener("keydown", ({ key, target }) => {
    const path = target.dataset.node;
    const isClosed = folded.includes(path);
    const canFold = isClosed || chart.state(path)?.querySelector(":scope > .flow-fold");
    if (canFold && ((key === "+" && isClosed) || (key === "-" && !isClosed))) {
      toggle(path);
    }
  });

  return { fold, toggle, reveal, unfoldAll: () => fold([]), folded: () => folded };
}
