// Following a log: new lines come at the top, but never push away what somebody is reading. While the
// pointer or the focus is in the list, or it is scrolled, they wait behind a bar that says how many.

const list = document.querySelector("[data-new-lines]");
const bar = document.querySelector("[data-new-lines-bar]");

if (list && bar) {
  showAll();
  document.addEventListener("htmx:afterSwap", () => {
    if (isRead()) wait();
    else showAll();
  });
  bar.addEventListener("click", showAll);
}

function isRead() {
  const region = list.parentElement;
  return region.matches(":hover, :focus-visible") || region.closest(".logpanel").scrollTop > 0;
}

/** The lines above the one that was the newest are hidden until they are asked for. */
function wait() {
  const lines = [...list.querySelectorAll(":scope > li:not(.tail)")];
  const known = lines.findIndex((line) => line.dataset.known);
  for (const line of lines.slice(0, Math.max(known, 0))) line.hidden = true;
  const hidden = lines.filter((line) => line.hidden).length;
  bar.hidden = hidden === 0;
  bar.textContent = `${hidden} new line${hidden === 1 ? "" : "s"}`;
}

function showAll() {
  for (const line of list.querySelectorAll(":scope > li")) {
    line.hidden = false;
    line.dataset.known = "1";
  }
  bar.hidden = true;
  list.closest(".logpanel").scrollTop = 0;
}
