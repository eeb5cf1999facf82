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
