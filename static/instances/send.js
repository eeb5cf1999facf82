// The drawer that sends an event, and the dialogs that upgrade and delete: fetched when they are opened.

import { openDialog } from "../site/js/dialogs.js";
import { offer } from "./payload.js";

let wanted = "";

export function prepareSend() {
  for (const [id, name] of [["send", "sendUrl"], ["delete", "deleteUrl"], ["upgrade", "upgradeUrl"]]) {
    const dialog = document.getElementById(id);
    dialog?.addEventListener("dialog:open", () => fill(dialog, dialog.dataset[name]));
    dialog?.addEventListener("close", () => dialog.replaceChildren());
  }
}

/** Opens the drawer with this event chosen. */
export function openSend(eventType) {
  wanted = eventType;
  openDialog(document.getElementById("send"));
}

async function fill(dialog, url) {
  const query = wanted ? `?event=${encodeURIComponent(wanted)}` : "";
  wanted = "";
  await htmx.ajax("GET", url + query, { target: dialog, swap: "innerHTML" });
  const form = dialog.querySelector("[data-send-form]");
  if (form) choose(form, form.querySelector("[name='event']:checked"));
  (dialog.querySelector("[autofocus]") ?? dialog.querySelector("[name='event']:checked"))?.focus();
}

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("[data-send-form]");
  if (!form) return;
  if (event.target.name === "event") choose(form, event.target);
  if (event.target.name === "as") {
    form.querySelector("[data-claims]").hidden = event.target.value !== "claims";
  }
  if (event.target.matches("[data-senders]") && event.target.value) {
    form.querySelector("[name='claims']").value = event.target.value;
  }
});

document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-send-form] [name='other']")) return;
  const form = event.target.form;
  form.querySelector("[data-other]").checked = true;
  nameButton(form, event.target.value);
});

function choose(form, radio) {
  offer(form, JSON.parse(radio?.dataset.payloads ?? "[]"));
  nameButton(form, radio?.value || form.querySelector("[name='other']").value);
}

function nameButton(form, name) {
  form.querySelector("[data-send-name]").textContent = name;
}

document.addEventListener("keydown", (event) => {
  const form = event.target.closest?.("[data-send-form]");
  if (form && event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
    event.preventDefault();
    form.querySelector("[data-send-button]").click();
  }
});
