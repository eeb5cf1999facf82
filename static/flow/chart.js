// The statechart in an element: its parts by name. Folding replaces the picture, so nobody else
// keeps elements of it. Of a machine that is too large to draw there is an empty picture.

const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  /** @param {HTMLElement} box the element with [data-flow] that holds the server's SVG, or the tree alone */
  constructor(box) {
    this.box = box;
    const drawn = box.querySelector("svg.flow");
    this.isDrawn = drawn !== null;
    this.#use(drawn ?? document.createElementNS(SVG, "svg"));
  }

  /** The state with this path, if it is drawn. Never looked up by a selector: paths are anything. */
  state(path) {
    return this.states.get(path);
  }

  /** The words of a transition, by its number, if they are drawn. */
  event(transition) {
    return this.events.get(String(transition));
  }

  /** Its place in the picture: {x, y, width, height}. */
  bounds(path) {
    return [...(this.state(path)?.querySelectorAll(":scope > .flow-box") ?? [])].at(-1)?.getBBox();
  }

  replace(svg) {
    this.svg.replaceWith(svg);
    this.#use(svg);
    this.tell("flow:drawn");
  }

  tell(name, detail = {}) {
    this.box.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }));
  }

  on(name, listener) {
    this.box.addEventListener(name, listener);
  }

  #use(svg) {
    this.svg = svg;
    this.states = byName(svg, "data-node");
    this.events = byName(svg, "data-transition");
    const [x, y, width, height] = (svg.getAttribute("viewBox") ?? "0 0 0 0").split(" ").map(Number);
    this.whole = { x, y, width, height };
  }
}

export function byName(root, attribute) {
  const elements = root?.querySelectorAll(`[${attribute}]`) ?? [];
  return new Map([...elements].map((element) => [element.getAttribute(attribute), element]));
}
