// What part of the picture is seen: zoom, pan, fit; by wheel, pointer, two fingers, and keys.

const ZOOM_MIN = 0.05, ZOOM_MAX = 4, FIT_MAX = 1.25;
const MARGIN = 24; // px of the picture around what is fitted
const STEP = 1.25;

export function attachViewport(chart) {
  const { box } = chart;
  let middle = { x: 0, y: 0 }, scale = 1; // the picture's point in the middle of the box, and px per unit
  const pointers = new Map();
  let moved = false;

  /** The part of the picture that is seen. */
  function view() {
    const width = box.clientWidth / scale, height = box.clientHeight / scale;
    return { x: middle.x - width / 2, y: middle.y - height / 2, width, height };
  }

  function look(to, zoom = scale) {
    middle = to;
    scale = Math.min(Math.max(zoom, ZOOM_MIN), ZOOM_MAX);
    const { x, y, width, height } = view();
    if (width > 0 && height > 0) {
      chart.svg.setAttribute("viewBox", [x, y, width, height].map((n) => n.toFixed(2)).join(" "));
    }
    chart.tell("flow:view", { ...view(), scale });
  }

  /** These states, or the whole picture, not larger than `scaleMax`. */
  function fit(paths = [], scaleMax = FIT_MAX) {
    const boxes = paths.map((path) => chart.bounds(path)).filter(Boolean);
    const { x, y, width, height } = boxes.length > 0 ? union(boxes) : chart.whole;
    const zoom = Math.min(box.clientWidth / (width + 2 * MARGIN), box.clientHeight / (height + 2 * MARGIN));
    look({ x: x + width / 2, y: y + height / 2 }, Math.min(zoom, scaleMax));
  }

  /** Around a point of the picture, which stays where it is. */
  function zoom(factor, around = middle) {
    const before = scale;
    const after = Math.min(Math.max(scale * factor, ZOOM_MIN), ZOOM_MAX);
    const share = before / after;
    look({ x: around.x + (middle.x - around.x) * share, y: around.y + (middle.y - around.y) * share }, after);
  }

  function pan(dx, dy) {
    look({ x: middle.x + dx / scale, y: middle.y + dy / scale });
  }

  /** A point of the picture, from one on the screen. */
  function point({ clientX, clientY }) {
    const frame = box.getBoundingClientRect();
    const { x, y } = view();
    return { x: x + (clientX - frame.left) / scale, y: y + (clientY - frame.top) / scale };
  }

  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-event.deltaY / 200), point(event));
    } else {
      pan(event.deltaX, event.deltaY);
    }
  }, { passive: false });

  box.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest(".flow-map")) {
      pointers.set(event.pointerId, event);
      moved = false;
    }
  });
  box.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) {
      return;
    }
    const dx = before.clientX - event.clientX, dy = before.clientY - event.clientY;
    if (!moved && Math.hypot(dx, dy) < 4) {
      return; // a click may shake a little
    }
    moved = true;
    box.setPointerCapture(event.pointerId);
    const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (other === undefined) {
      pan(dx, dy);
    } else {
      zoom(distance(event, other) / Math.max(distance(before, other), 1), point(other));
    }
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    box.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  // What ends a drag is not a click on what happens to be there.
  box.addEventListener("click", (event) => {
    if (moved) {
      event.stopPropagation();
      moved = false;
    }
  }, { capture: true });

  const keys = {
    "+": () => zoom(STEP),
    "=": () => zoom(STEP),
    "-": () => zoom(1 / STEP),
    0: () => fit(),
    ArrowLeft: () => pan(-box.clientWidth / 12, 0),
    ArrowRight: () => pan(box.clientWidth / 12, 0),
    ArrowUp: () => pan(0, -box.clientHeight / 12),
    ArrowDown: () => pan(0, box.clientHeight / 12),
  };
  box.addEventListener("keydown", (event) => {
    if (event.target === box && !event.ctrlKey && !event.metaKey && !event.altKey && Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  new ResizeObserver(() => look(middle)).observe(box);
  chart.on("flow:drawn", () => look(middle));

  return { view, look, fit, zoom, pan, point, get scale() { return scale; }, get middle() { return middle; } };
}

function union(boxes) {
  const x = Math.min(...boxes.map((one) => one.x)), y = Math.min(...boxes.map((one) => one.y));
  const right = Math.max(...boxes.map((one) => one.x + one.width));
  const bottom = Math.max(...boxes.map((one) => one.y + one.height));
  return { x, y, width: right - x, height: bottom - y };
}

function distance(a, b) {
  return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
}
