// Shortcuts. A key does nothing while somebody types, in a dialog, or with Ctrl, Alt or ⌘.

import { openDialog } from "./dialogs.js";

const SEQUENCE_MS = 1200;

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
if (isMac) for (const key of document.querySelectorAll("[data-mod]")) key.textContent = "⌘";

let goUntil = 0;

document.addEventListener("keydown", (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openDialog(document.getElementById("palette"));
    return;
  }
  if (event.metaKey || event.ctrlKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (handle(event.key, event.target)) event.preventDefault();
});

function isTyping(element) {
  return element.matches("input, textarea, select, [contenteditable='true']");
}

/** Does what `key` stands for; false if it stands for nothing here. */
function handle(key, focused) {
  if (Date.now() < goUntil) {
    goUntil = 0;
    return click(`.side [data-go="${CSS.escape(key)}"]`);
  }
  switch (key) {
    case "g":
      goUntil = Date.now() + SEQUENCE_MS;
      return true;
    case "?":
      openDialog(document.getElementById("shortcuts"));
      return true;
    case "/":
      return focus("[data-search]");
    case ".":
      return click("[data-live]:not([hidden])");
    case "j":
      return moveInRows(focused, 1);
    case "k":
      return moveInRows(focused, -1);
    default:
      return (
        key.length === 1 &&
        (click(`[data-shortcut="${CSS.escape(key)}"]:not([disabled])`) ||
          focus(`[data-shortcut-focus="${CSS.escape(key)}"]`))
      );
  }
}

function click(selector) {
  const element = document.querySelector(selector);
  element?.click();
  return element !== null;
}

function focus(selector) {
  const element = document.querySelector(selector);
  element?.focus();
  element?.select?.();
  return element !== null;
}

/** Moves the focus among the links `data-row`, from the one that has it. */
function moveInRows(focused, step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (rows.length === 0) return false;
  const at = rows.indexOf(focused.closest("tr, li")?.querySelector("[data-row]"));
  const next = at === -1 ? (step > 0 ? 0 : rows.length - 1) : at + step;
  rows[Math.min(Math.max(next, 0), rows.length - 1)].focus();
  return true;
}
