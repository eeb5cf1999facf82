// A part of a page that could not be loaded says so in its place, with the request's id and a way to
// try again. What was there before a refresh that failed stays.

const template = document.getElementById("failed");

document.addEventListener("htmx:responseError", ({ detail }) => {
  const name = detail.xhr.getResponseHeader("x-request-id");
  show(detail.target, name ? `Request ${name}` : "");
});
document.addEventListener("htmx:sendError", ({ detail }) => show(detail.target, "The server can't be reached."));

document.addEventListener("click", (event) => {
  const part = event.target.closest("[data-retry]")?.closest("[data-loads]");
  part?.dispatchEvent(new CustomEvent("retry"));
});

function show(target, about) {
  const part = target.closest("[data-loads]");
  if (!part) return;
  const failed = template.content.firstElementChild.cloneNode(true);
  failed.querySelector("[data-what]").textContent = part.dataset.loads;
  failed.querySelector("[data-request]").textContent = about;
  part.replaceChildren(failed);
}
