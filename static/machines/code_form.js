// The form that takes code: a chosen or dropped file is read into the text field, where it can be
// seen and mended; a new machine gets the file's name. While the server checks, the button says so.

const code = document.querySelector("[data-code]");
const file = document.querySelector("[data-code-file]");
const fileName = document.querySelector("[data-code-name]");
const machineName = document.querySelector("[data-machine-name]");
const drop = document.querySelector("[data-code-drop]");

file.addEventListener("change", () => take(file.files[0]));

drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});

async function take(chosen) {
  if (!chosen) return;
  code.value = await chosen.text();
  fileName.value = chosen.name;
  if (machineName && !machineName.value) {
    machineName.value = chosen.name.split(".")[0].replace(/[^A-Za-z0-9_-]+/g, "-");
  }
  // The text is sent; the file besides it would be sent twice.
  file.value = "";
  code.focus();
}

for (const form of document.querySelectorAll("[data-deploy]")) {
  form.addEventListener("submit", ({ submitter }) => {
    const button = form.querySelector("[data-busy]");
    if (submitter && submitter !== button) return;
    button.setAttribute("aria-disabled", "true");
    button.textContent = button.dataset.busy;
  });
}
