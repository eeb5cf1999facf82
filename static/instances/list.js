// The list of instances: filters apply as they are chosen, and a form with a complaint opens again.

import { openDialog } from "../site/js/dialogs.js";

for (const form of document.querySelectorAll("[data-autosubmit]")) {
  form.dataset.automatic = "";
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) submit(form);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form);
  });
}

/** Goes to the filtered list; filters that are off do not stand in its address. */
function submit(form) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.append(name, value);
  location.search = query.toString();
}

openDialog(document.querySelector("dialog[data-open-now]"));

// Of very many instances the server looks at a part for each page. While nothing is found, this
// goes on by itself, until there is something, everything was looked at, or somebody leaves.

const LOOKS_MAX = 200;

async function lookOn(panel) {
  const text = panel.querySelector("[data-looked-text]");
  const link = panel.querySelector("[data-look-link]");
  let looked = Number(panel.dataset.looked);
  let url = panel.dataset.lookOn;
  link.textContent = "Stop looking";
  link.addEventListener("click", (event) => {
    event.preventDefault();
    url = null;
    link.replaceWith();
  }, { once: true });
  for (let look = 0; look < LOOKS_MAX && url !== null; look++) {
    const response = await fetch(url);
    if (!response.ok || url === null) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const next = page.querySelector("[data-look-on]");
    if (next === null) {
      if (url !== null) location.replace(url);
      return;
    }
    looked += Number(next.dataset.looked);
    text.textContent = looked.toLocaleString("en");
    if (url !== null) url = next.dataset.lookOn;
  }
}

const panel = document.querySelector("[data-look-on]");
if (panel) lookOn(panel);
