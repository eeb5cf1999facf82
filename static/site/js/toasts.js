// Toasts: those that came with the page, and those of `toast` events {text, kind: "ok" | "bad"}.
// What went wrong stays until it is dismissed.

const SHOWN_MS = 6000;

const box = document.querySelector("[data-toasts]");
const template = document.getElementById("toast");

for (const toast of box.querySelectorAll("[data-toast]")) leaveLater(toast);

box.addEventListener("click", (event) => {
  if (event.target.closest("[data-dismiss]")) event.target.closest("[data-toast]").remove();
});

document.addEventListener("toast", (event) => showToast(event.detail.text, event.detail.kind));

// htmx answers: a failure that said what was wrong has sent a `toast` event of its own.
document.addEventListener("htmx:responseError", (event) => {
  const { xhr, target } = event.detail;
  if (target.closest("[data-loads]")) return; // it says so itself (failed.js)
  if (xhr.getResponseHeader("HX-Trigger")?.includes('"toast"')) return;
  const name = xhr.getResponseHeader("x-request-id");
  showToast(`The server answered ${xhr.status}${name ? ` (${name})` : ""}. Try again.`, "bad");
});

/** Shows `text`, never as HTML. */
export function showToast(text, kind = "ok") {
  const toast = template.content.firstElementChild.cloneNode(true);
  toast.querySelector("span").textContent = text;
  if (kind === "bad") {
    toast.classList.add("error");
    toast.querySelector("use").setAttribute("href", "#i-alert");
  }
  box.append(toast);
  leaveLater(toast);
}

function leaveLater(toast) {
  if (!toast.classList.contains("error")) setTimeout(() => toast.remove(), SHOWN_MS);
}
