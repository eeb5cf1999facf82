// The living diagram: how many instances are in each state, as badges that lead to them.
// The numbers come with #overview, which refreshes itself; the drawing stays as it is.

const SVG = "http://www.w3.org/2000/svg";
const PAD = 6;
const CHAR = 6.6; // px of a digit in the badge's font
const HEIGHT = 17;

document.addEventListener("htmx:afterSettle", show);
document.addEventListener("pointerover", (event) => mark(event.target, true));
document.addEventListener("pointerout", (event) => mark(event.target, false));

function show() {
  const data = document.getElementById("state-counts");
  const canvas = document.querySelector("[data-living]");
  if (!data || !canvas) return;
  const counts = new Map(Object.entries(JSON.parse(data.textContent)));
  for (const node of canvas.querySelectorAll(".flow-state[data-node]:not(.is-root, .is-region)")) {
    const count = counts.get(node.dataset.node) ?? 0;
    node.classList.toggle("has-instances", count > 0);
    badge(node, count, canvas.dataset.instances);
  }
}

function badge(node, count, instancesUrl) {
  const text = count > 9999 ? `${Math.floor(count / 1000)} k` : count.toLocaleString("en");
  const present = node.querySelector(":scope > .flow-count");
  if (present?.dataset.count === String(count)) return;
  present?.remove();
  const box = node.querySelector(":scope > .flow-box");
  if (!count || !box) return;
  const link = element("a", { class: "flow-count", "data-count": count });
  link.setAttribute("href", `${instancesUrl}?state=${encodeURIComponent(node.dataset.node)}`);
  const width = text.length * CHAR + 2 * PAD;
  const x = Number(box.getAttribute("x")) + Number(box.getAttribute("width")) - width + 8;
  const y = Number(box.getAttribute("y")) - HEIGHT / 2;
  const title = element("title", {});
  title.textContent = `${text} in ${node.dataset.node}: show them`;
  const words = element("text", { x: x + width / 2, y: y + HEIGHT / 2 + 4, "text-anchor": "middle" });
  words.textContent = text;
  link.append(title, element("rect", { x, y, width, height: HEIGHT, rx: HEIGHT / 2 }), words);
  node.append(link);
}

/** The state of the row under the pointer is outlined in the drawing. */
function mark(target, isOn) {
  const path = target.closest?.("[data-state-row]")?.dataset.stateRow;
  if (path === undefined) return;
  const node = document.querySelector(`[data-living] [data-node="${CSS.escape(path)}"]`);
  node?.classList.toggle("is-selected", isOn);
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
