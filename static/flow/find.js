// Finds states and events by their words, also those inside closed states.

/**
 * @param panel the element with [data-flow-panel]; in it input[data-flow-find], and an
 *        output[data-flow-found] that says which match of how many is shown
 * @param visit shows a state or a transition
 */
export function attachFind(panel, chart, tree, visit) {
  const input = panel.querySelector("input[data-flow-find]");
  const output = panel.querySelector("[data-flow-found]");
  if (input === null || tree === null) {
    return;
  }
  let matches = [], at = -1;

  function search() {
    const words = input.value.trim().toLowerCase();
    const items = words === "" ? [] : [...tree.querySelectorAll("[role=treeitem]")];
    matches = items.filter((item) => ownText(item).includes(words));
    matches.sort((a, b) => isTransition(a) - isTransition(b)); // states before what leads to them
    at = -1;
    paint();
  }

  function paint() {
    for (const element of chart.svg.querySelectorAll(".is-found")) {
      element.classList.remove("is-found");
    }
    for (const item of matches) {
      const { node, transition } = item.dataset;
      (isTransition(item) ? chart.event(transition) : chart.state(node))?.classList.add("is-found");
    }
    if (output !== null) {
      const none = input.value.trim() === "" ? "" : "nothing found";
      output.textContent = matches.length === 0 ? none : at < 0 ? `${matches.length} found` : `${at + 1} of ${matches.length}`;
    }
  }

  function next(step) {
    if (matches.length > 0) {
      at = (at + step + matches.length) % matches.length;
      const { node, transition } = matches[at].dataset;
      visit(isTransition(matches[at]) ? { transition: Number(transition) } : { path: node });
      paint();
    }
  }

  input.addEventListener("input", search);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      next(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      input.value = "";
      search();
    }
  });
  chart.on("flow:drawn", paint);
}

function isTransition(item) {
  return item.dataset.transition !== undefined;
}

/** What an item says itself, without what is inside of it. */
function ownText(item) {
  const own = [...item.childNodes].filter((node) => node.nodeName !== "UL");
  return own.map((node) => node.textContent).join(" ").toLowerCase();
}
