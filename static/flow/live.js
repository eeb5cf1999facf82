// Where an instance, or thousands of them, are: toggles classes, so it is cheap at any rate.

import { byName } from "./chart.js";

const STATE_CLASSES = ["is-active", "is-leaf", "is-was", "is-preview"];
const EVENT_CLASSES = ["is-next", "is-blocked", "is-taken"];
const EDGE_CLASSES = ["is-next", "is-taken", "is-walked"];
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param chart the Chart
 * @param {HTMLElement | null} tree its twin
 */
export function attachLive(chart, tree) {
  const items = byName(tree, "data-node"), sentences = byName(tree, "data-transition");
  const said = document.createElement("p");
  said.className = "flow-said";
  said.setAttribute("aria-live", "polite");
  chart.box.append(said);
  let shown = {}, marked = {};

  /**
   * Show one moment. Paths are those of data-node, transitions are numbers.
   * @param {{active?: string[], was?: string[], preview?: string[], taken?: number,
   *          walked?: number[], next?: number[], blocked?: Record<number, string>}} moment
   *        `blocked` says for a transition why it would not happen now
   */
  function show(moment) {
    shown = moment;
    const leaves = paint(moment);
    const text = leaves.map((path) => items.get(path)?.querySelector(".flow-tree-name")?.textContent ?? path).join(", ");
    if (said.textContent !== text) {
      said.textContent = text;
    }
    chart.tell("flow:shown");
  }

  function paint({ active = [], was = [], preview = [], taken, walked = [], next = [], blocked = {} }) {
    clear();
    const known = active.filter((path) => chart.state(path) !== undefined || items.has(path));
    // A state that this version does not have: that the whole is active would say nothing.
    if (active.length > 1 && known.length === 1 && known[0] === "") {
      known.pop();
    }
    const drawn = known.filter((path) => chart.state(path) !== undefined);
    const leaves = innermost(drawn);
    mark("is-active", drawn);
    mark("is-leaf", leaves);
    mark("is-was", was);
    mark("is-preview", preview);
    for (const path of known) {
      items.get(path)?.setAttribute("aria-current", "true");
    }
    for (const transition of next) {
      markTransition(transition, "is-next");
      sentences.get(String(transition))?.classList.add("is-next");
    }
    for (const transition of walked) {
      edgeOf(chart.event(transition))?.classList.add("is-walked");
    }
    for (const [transition, reason] of Object.entries(blocked)) {
      block(transition, reason);
    }
    if (taken !== undefined) {
      markTransition(taken, "is-taken");
    }
    return innermost(chart.isDrawn ? drawn : known);
  }

  function clear() {
    remove(chart.svg, ".flow-state", STATE_CLASSES);
    remove(chart.svg, ".flow-event", EVENT_CLASSES);
    remove(chart.svg, ".flow-edge", EDGE_CLASSES);
    for (const item of items.values()) {
      item.removeAttribute("aria-current");
    }
    for (const sentence of sentences.values()) {
      sentence.classList.remove("is-next");
    }
    for (const title of chart.svg.querySelectorAll("title.flow-reason")) {
      title.remove();
    }
  }

  function mark(name, paths) {
    for (const path of paths) {
      chart.state(path)?.classList.add(name);
    }
  }

  function markTransition(transition, name) {
    const event = chart.event(transition), edge = edgeOf(event);
    void edge?.getBoundingClientRect(); // after this the animation starts again
    event?.classList.add(name);
    edge?.classList.add(name);
  }

  function block(transition, reason) {
    const event = chart.event(transition);
    if (event !== undefined) {
      const title = document.createElementNS(SVG, "title");
      title.setAttribute("class", "flow-reason");
      title.textContent = reason;
      event.classList.add("is-blocked");
      event.prepend(title);
    }
  }

  /**
   * Say something about all instances: classes and numbers that stay until the next call.
   * @param {{states?: Record<string, string>, transitions?: Record<number, string>,
   *          badges?: Record<string, string | number>}} marks
   *        classes by path and by transition (heat-3, is-added, t2), and badges by path
   */
  function decorate(marks) {
    for (const [element, name] of decorations(marked)) {
      element?.classList.remove(name);
    }
    for (const badge of chart.svg.querySelectorAll(".flow-badge")) {
      badge.remove();
    }
    marked = marks;
    for (const [element, name] of decorations(marks)) {
      element?.classList.add(name);
    }
    for (const [path, text] of Object.entries(marks.badges ?? {})) {
      addBadge(path, String(text));
    }
    chart.tell("flow:shown");
  }

  function decorations({ states = {}, transitions = {} }) {
    return [
      ...Object.entries(states).map(([path, name]) => [chart.state(path), name]),
      ...Object.entries(transitions).flatMap(([transition, name]) => {
        const event = chart.event(transition);
        return [[event, name], [edgeOf(event), name]];
      }),
    ];
  }

  /** At the upper right corner of a state. */
  function addBadge(path, words) {
    const at = chart.bounds(path);
    if (at === undefined) {
      return;
    }
    const badge = document.createElementNS(SVG, "g"), ground = document.createElementNS(SVG, "rect");
    const text = document.createElementNS(SVG, "text");
    badge.setAttribute("class", "flow-badge");
    text.textContent = words;
    badge.append(ground, text);
    chart.state(path).append(badge);
    const width = Math.max(text.getComputedTextLength() + 10, 16), x = at.x + at.width + 4 - width, y = at.y - 8;
    set(ground, { x, y, width, height: 16, rx: 8 });
    set(text, { x: x + width / 2, y: y + 11.8, "text-anchor": "middle" });
  }

  chart.on("flow:drawn", () => {
    const { taken, ...rest } = shown; // an old pulse is not shown again
    paint(rest);
    decorate(marked);
  });

  return { show, decorate, active: () => shown.active ?? [] };
}

export function edgeOf(event) {
  return event?.closest(".flow-edge");
}

function innermost(paths) {
  return paths.filter((path) => !paths.some((other) => isInside(other, path)));
}

/** Whether a path lies inside another one. */
export function isInside(path, outer) {
  return path !== outer && (outer === "" || path.startsWith(`${outer}.`));
}

function remove(root, selector, names) {
  for (const name of names) {
    for (const element of root.querySelectorAll(`${selector}.${name}`)) {
      element.classList.remove(name);
    }
  }
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
}
