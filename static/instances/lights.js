// What lights up in the picture of a machine: its active states, the transition that was just
// taken, and the events that are handled next. Only classes change; the picture is drawn once.

/** The paths of the active states of an XState state value, as machines/flow/model.py writes them. */
export function activePaths(value, above = "") {
  if (typeof value === "string") return [join(above, value)];
  return Object.entries(value ?? {}).flatMap(([key, below]) => {
    const path = join(above, key);
    return [path, ...activePaths(below, path)];
  });
}

function join(above, key) {
  const name = key.replaceAll(".", "\\.");
  return above ? `${above}.${name}` : name;
}

/** Lights of everything inside `box`; `show` may be called as often as one likes. */
export function lightsIn(box) {
  const states = new Map();
  for (const element of box.querySelectorAll("[data-node]")) {
    states.set(element.dataset.node, [...(states.get(element.dataset.node) ?? []), element]);
  }
  const steps = [...box.querySelectorAll("[data-transition]")];
  let lit = [];

  function light(element, name) {
    element.classList.add(name);
    lit.push([element, name]);
  }

  function show({ active = [], taken = null, next = [], preview = [] }) {
    for (const [element, name] of lit) element.classList.remove(name);
    lit = [];
    const on = new Set(active);
    const holders = new Set(active.flatMap(pathsAbove));
    for (const [path, elements] of states) {
      for (const element of elements) showState(element, on.has(path), !holders.has(path));
    }
    for (const path of preview) for (const element of states.get(path) ?? []) light(element, "is-preview");
    const events = new Set(next);
    for (const step of steps) {
      if (taken !== null && Number(step.dataset.transition) === taken) {
        light(step, "is-taken");
        const wire = step.closest(".flow-edge");
        if (wire) light(wire, "is-taken");
      }
      if (step.dataset.event && events.has(step.dataset.event) && on.has(sourceOf(step))) light(step, "is-next");
    }
  }

  function showState(element, isActive, isLeaf) {
    if (isActive) light(element, "is-active");
    if (isActive && isLeaf) light(element, "is-leaf");
    if (element.getAttribute("role") !== "treeitem") return;
    if (isActive) element.setAttribute("aria-current", "true");
    else element.removeAttribute("aria-current");
    const word = element.querySelector("[data-active-word]");
    if (word) word.textContent = isActive ? "active" : "";
  }

  return { show };
}

/** The paths of all states that hold the one at `path`. */
function pathsAbove(path) {
  const keys = path.split(/(?<!\\)\./);
  return ["", ...keys.slice(0, -1).map((_, index) => keys.slice(0, index + 1).join("."))].filter((above) => above !== path);
}

/** The path of the state that a transition leaves: it stands inside it, or its wire names it. */
function sourceOf(step) {
  const edge = step.closest("[data-source]");
  const source = edge ? document.getElementById(edge.dataset.source) : step.closest("[data-node]");
  return source?.dataset.node;
}
