// Trees (role="tree") as flat lists: each item says its level. Arrow keys move, → and ← open and
// close, a click on an item that holds others does both.

document.addEventListener("click", (event) => {
  const item = event.target.closest("[data-tree] > [role='treeitem']");
  if (!item || event.target.closest("[data-event], a, button")) return;
  if (item.hasAttribute("aria-expanded")) toggle(item);
  focus(item);
});

document.addEventListener("keydown", (event) => {
  const item = event.target.closest?.("[data-tree] > [role='treeitem']");
  if (!item || event.target !== item || event.ctrlKey || event.metaKey || event.altKey) return;
  const done = act(event.key, item);
  if (done) {
    event.preventDefault();
    event.stopPropagation();
  }
});

function act(key, item) {
  const items = [...item.parentElement.children].filter((other) => !other.hidden);
  const at = items.indexOf(item);
  const expanded = item.getAttribute("aria-expanded");
  switch (key) {
    case "ArrowDown":
      return focus(items[Math.min(at + 1, items.length - 1)]);
    case "ArrowUp":
      return focus(items[Math.max(at - 1, 0)]);
    case "Home":
      return focus(items[0]);
    case "End":
      return focus(items.at(-1));
    case "ArrowRight":
      return expanded === "false" ? toggle(item) : focus(items[Math.min(at + 1, items.length - 1)]);
    case "ArrowLeft":
      return expanded === "true" ? toggle(item) : focus(parentOf(item) ?? item);
    case "Enter":
    case " ":
      return expanded !== null && toggle(item);
    default:
      return false;
  }
}

function focus(item) {
  for (const other of item.parentElement.querySelectorAll(":scope > [tabindex='0']")) other.tabIndex = -1;
  item.tabIndex = 0;
  item.focus();
  return true;
}

function parentOf(item) {
  const level = Number(item.dataset.level);
  let other = item.previousElementSibling;
  while (other && Number(other.dataset.level) >= level) other = other.previousElementSibling;
  return other;
}

/** Opens or closes an item. What was closed inside of it stays closed. */
function toggle(item) {
  const opens = item.getAttribute("aria-expanded") === "false";
  item.setAttribute("aria-expanded", String(opens));
  const level = Number(item.dataset.level);
  let closedAt = Infinity;
  for (let other = item.nextElementSibling; other; other = other.nextElementSibling) {
    const at = Number(other.dataset.level);
    if (at <= level) break;
    if (at <= closedAt) closedAt = Infinity;
    other.hidden = !opens || at > closedAt;
    if (other.getAttribute("aria-expanded") === "false" && closedAt === Infinity) closedAt = at;
  }
  return true;
}
