// The payload of an event to send, as fields and as JSON; both say the same. The fields are those of
// the payload that such an event carried last.

const FIELDS_MAX = 24;

/** Begins with the payloads of an event that was chosen, unless somebody has written another. */
export function offer(form, payloads) {
  const text = form.querySelector("[name='payload']");
  if (text.value !== (text.dataset.offered ?? "")) return;
  use(form, payloads[0] ?? "");
  const recent = form.querySelector("[data-recent]");
  recent.hidden = payloads.length < 2;
  recent.replaceChildren(...payloads.map((payload, at) => new Option(at === 0 ? "Latest payload" : inShort(payload), payload)));
  form.querySelector("[data-learned]").hidden = payloads.length !== 1 || payloads[0] === "";
}

function use(form, payload) {
  const text = form.querySelector("[name='payload']");
  text.value = payload;
  text.dataset.offered = payload;
  drawFields(form);
}

function inShort(payload) {
  return payload === "" ? "(no payload)" : payload.replace(/\s+/g, " ").slice(0, 60);
}

document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-send-form] [data-recent]")) use(event.target.form, event.target.value);
});

document.addEventListener("input", ({ target }) => {
  const form = target.closest?.("[data-send-form]");
  if (target.name === "payload" && form) drawFields(form);
  if (target.dataset?.field !== undefined && form) write(form, target);
});

function read(form) {
  try {
    const value = JSON.parse(form.querySelector("[name='payload']").value);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function drawFields(form) {
  const box = form.querySelector("[data-fields]");
  const entries = Object.entries(read(form) ?? {});
  const fits = entries.length > 0 && entries.length <= FIELDS_MAX;
  box.hidden = !fits;
  form.querySelector("[data-json]").open = !fits;
  box.replaceChildren(...(fits ? entries.map(([name, value]) => fieldOf(name, value)) : []));
}

function fieldOf(name, value) {
  const label = document.createElement("label");
  const words = document.createElement("bdi");
  const input = document.createElement("input");
  words.className = "mono clip";
  words.textContent = name;
  words.title = name;
  input.dataset.field = name;
  input.dataset.kind = typeof value;
  input.autocomplete = "off";
  input.spellcheck = false;
  if (typeof value === "boolean") {
    input.type = "checkbox";
    input.checked = value;
  } else {
    input.className = "input mono";
    input.type = typeof value === "number" ? "number" : "text";
    if (input.type === "number") input.step = "any";
    input.value = typeof value === "object" ? JSON.stringify(value) : String(value);
  }
  label.append(words, input);
  return label;
}

/** What a field says now takes its place in the JSON. */
function write(form, input) {
  const payload = read(form) ?? {};
  const value = valueOf(input);
  input.setAttribute("aria-invalid", String(value === undefined));
  if (value === undefined) return;
  // Not by assignment: a field may be called __proto__.
  Object.defineProperty(payload, input.dataset.field, { value, enumerable: true, configurable: true, writable: true });
  const text = form.querySelector("[name='payload']");
  text.value = JSON.stringify(payload, null, 2);
}

/** Undefined if it is not valid. */
function valueOf({ dataset, checked, value }) {
  switch (dataset.kind) {
    case "boolean":
      return checked;
    case "number":
      return value === "" ? undefined : Number(value);
    case "object":
      try {
        return JSON.parse(value);
      } catch {
        return undefined;
      }
    default:
      return value;
  }
}
