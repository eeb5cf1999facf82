// Parts of the page that the server has rendered anew take the place of the old ones.
//
// A part that says the same as before stays, and nothing changes while a button is pressed: who
// clicks must not find something else under the pointer.

const PRESSED_MS_MAX = 3000;

const latest = new Map(); // by id, as the server has sent it
let releases = Promise.resolve();

document.addEventListener("pointerdown", () => {
  releases = new Promise((resolve) => {
    const release = () => setTimeout(resolve); // after the click that follows
    document.addEventListener("pointerup", release, { once: true });
    document.addEventListener("pointercancel", release, { once: true });
    setTimeout(resolve, PRESSED_MS_MAX);
  });
});

/** Once no button is pressed. */
export function released() {
  return releases;
}

/** The text that the server answers, or null if there is none: signed out, or it failed. */
export async function ask(url) {
  let response;
  try {
    response = await fetch(url, { headers: { "HX-Request": "true", "HX-Current-URL": location.href } });
  } catch {
    return null; // the pill says that the connection is lost
  }
  const elsewhere = response.headers.get("HX-Redirect");
  if (elsewhere) location.assign(elsewhere);
  if (response.status === 404 || response.status === 403) location.reload(); // the page says why
  return response.status === 200 ? response : null;
}

export function fragmentOf(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content;
}

/**
 * Puts each element of `html` where the one with its id stands; `kept` are ids to leave alone.
 * Returns what is in <template data-blocks>, or null.
 */
export function show(html, kept = []) {
  const sent = fragmentOf(html);
  const focused = nameOfFocus();
  for (const part of [...sent.children].filter((child) => child.id)) {
    const text = part.outerHTML;
    if (kept.includes(part.id) || latest.get(part.id) === text) continue;
    latest.set(part.id, text);
    document.getElementById(part.id)?.replaceWith(part);
    htmx.process(part);
  }
  focusAgain(focused);
  return sent.querySelector("[data-blocks]")?.content ?? null;
}

function nameOfFocus() {
  const { id, dataset } = document.activeElement ?? document.body;
  if (id) return `#${CSS.escape(id)}`;
  return dataset.shortcut ? `[data-shortcut="${CSS.escape(dataset.shortcut)}"]` : null;
}

/** The element with the focus may have been replaced by its successor. */
function focusAgain(selector) {
  if (selector && document.activeElement === document.body) document.querySelector(selector)?.focus();
}
