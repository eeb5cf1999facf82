// Dialogs: `data-open="id"` opens one, `data-close` inside it or a click beside it closes it.

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) {
    openDialog(document.getElementById(opener.dataset.open));
    return;
  }
  const dialog = event.target.closest("dialog");
  if (dialog && (event.target === dialog || event.target.closest("[data-close]"))) {
    dialog.close();
  }
});

/** Opens a <dialog> as a modal, unless it is open, and tells it by a `dialog:open` event. */
export function openDialog(dialog) {
  if (!dialog || dialog.open) return;
  // One dialog at a time: a second one above the first would trap the focus twice.
  for (const other of document.querySelectorAll("dialog[open]")) other.close();
  dialog.showModal();
  dialog.dispatchEvent(new CustomEvent("dialog:open"));
}

// A link may lead to a dialog, and a form that was refused comes back open.
const asked = location.hash ? document.getElementById(location.hash.slice(1)) : null;
openDialog(document.querySelector("dialog[data-open-now]") ?? (asked?.matches("dialog") ? asked : null));
