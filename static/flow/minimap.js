// A small picture of the whole, with the part in view framed; it is there while not all is in view.

const SVG = "http://www.w3.org/2000/svg";

export function attachMinimap(chart, viewport) {
  const map = document.createElementNS(SVG, "svg");
  map.setAttribute("class", "flow flow-map");
  map.setAttribute("aria-hidden", "true");
  const frame = document.createElementNS(SVG, "rect");
  frame.setAttribute("class", "flow-map-view");
  chart.box.append(map);
  let isStale = false;

  function draw() {
    const copy = chart.svg.querySelector(".flow-states").cloneNode(true);
    for (const element of copy.querySelectorAll("text, title, .flow-edge, .flow-fold, .flow-badge")) {
      element.remove();
    }
    for (const element of copy.querySelectorAll("[id], [data-node]")) {
      element.removeAttribute("id");
      element.removeAttribute("data-node");
      element.classList.remove("is-selected", "is-found");
    }
    const { x, y, width, height } = chart.whole;
    map.setAttribute("viewBox", [x, y, width, height].join(" "));
    map.replaceChildren(copy, frame);
    isStale = false;
    place();
  }

  function place() {
    const view = viewport.view(), { whole } = chart;
    for (const name of ["x", "y", "width", "height"]) {
      frame.setAttribute(name, view[name]);
    }
    const seesAll = view.x <= whole.x && view.y <= whole.y &&
      view.x + view.width >= whole.x + whole.width && view.y + view.height >= whole.y + whole.height;
    map.toggleAttribute("hidden", seesAll);
    if (isStale && !seesAll) {
      draw();
    }
  }

  /** Classes change often: one copy for each picture on the screen is enough. */
  function outdate() {
    if (!isStale) {
      isStale = true;
      requestAnimationFrame(place);
    }
  }

  function goTo(event) {
    const inverse = map.getScreenCTM()?.inverse();
    if (inverse) {
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(inverse);
      viewport.look({ x, y });
    }
  }

  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    goTo(event);
  });
  map.addEventListener("pointermove", (event) => {
    if (map.hasPointerCapture(event.pointerId)) {
      goTo(event);
    }
  });
  chart.on("flow:view", place);
  chart.on("flow:drawn", draw);
  chart.on("flow:shown", outdate);
  draw();
}
