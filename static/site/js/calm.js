// What refreshes itself stays calm: the focus is where it was, and rows do not move away from under
// the pointer. A part with `data-calm` waits with its new content until the pointer has left it.

let focused = "";

document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (requestConfig.triggeringEvent?.type !== "tick") return;
  if (target.closest("[data-calm]")?.matches(":hover")) {
    event.detail.shouldSwap = false;
    return;
  }
  focused = target.contains(document.activeElement) ? nameOf(document.activeElement) : "";
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (!focused) return;
  const { target } = event.detail;
  const again = [...target.querySelectorAll("a, button, [tabindex]")].find(
    (element) => nameOf(element) === focused,
  );
  focused = "";
  again?.focus({ preventScroll: true });
});

/** What tells an element from the others of its part, before and after a refresh. */
function nameOf(element) {
  const { form } = element;
  return [element.id, element.getAttribute("href"), form?.action, element.value, element.textContent].join("|");
}
