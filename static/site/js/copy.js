// `data-copy` copies the code beside the button and says so for a moment.

const SHOWN_MS = 1500;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.dataset.copy || button.parentElement.querySelector("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https browsers offer no clipboard: select the text instead, for Ctrl-C.
    const code = button.parentElement.querySelector("code");
    if (code) getSelection().selectAllChildren(code);
    return;
  }
  show(button, "check", "Copied");
  setTimeout(() => show(button, "copy", "Copy"), SHOWN_MS);
});

function show(button, icon, label) {
  button.querySelector("use")?.setAttribute("href", `#i-${icon}`);
  button.setAttribute("aria-label", label);
}
