// The command palette. The server finds machines and instances (htmx fills #palette-found); what the
// page itself offers is filtered here. The focus stays in the input, `aria-selected` moves.

const dialog = document.querySelector("[data-palette]");
const input = dialog.querySelector("input");
const list = dialog.querySelector('[role="listbox"]');

dialog.addEventListener("dialog:open", () => {
  input.value = "";
  input.focus();
  input.dispatchEvent(new CustomEvent("palette:open"));
  filter();
});

input.addEventListener("input", filter);
list.addEventListener("htmx:afterSettle", selectFirst);

list.addEventListener("pointermove", (event) => {
  const option = event.target.closest('[role="option"]');
  if (option) select(option);
});

input.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    const options = visibleOptions();
    const at = options.indexOf(selected());
    select(options[(at + step + options.length) % options.length]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    open(selected(), event.metaKey || event.ctrlKey);
  }
});

function filter() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const option of list.querySelectorAll('[data-commands] [role="option"]')) {
    const text = option.textContent.toLowerCase();
    option.hidden = !words.every((word) => text.includes(word));
  }
  for (const group of list.querySelectorAll("[data-commands]")) {
    group.hidden = !group.querySelector('[role="option"]:not([hidden])');
  }
  selectFirst();
}

function visibleOptions() {
  return [...list.querySelectorAll('[role="option"]:not([hidden])')];
}

function selected() {
  return list.querySelector('[role="option"][aria-selected="true"]');
}

function selectFirst() {
  const options = visibleOptions();
  list.querySelector("[data-none]").hidden = options.length > 0;
  select(options[0]);
}

function select(option) {
  selected()?.setAttribute("aria-selected", "false");
  if (!option) {
    input.removeAttribute("aria-activedescendant");
    return;
  }
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", option.id);
}

function open(option, inNewTab) {
  if (!option) return;
  if (inNewTab) window.open(option.href, "_blank", "noopener");
  else option.click();
  dialog.close();
}
