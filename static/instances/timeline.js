// The timeline loads older rows when their end comes into view.

import { ask } from "./parts.js";

const timeline = document.getElementById("timeline");
const panel = document.getElementById("timeline-panel");
const url = timeline.closest("[data-instance-page]").dataset.url;

const nearEnd = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) loadOlder(entry.target);
  },
  { root: panel, rootMargin: "800px" },
);

new MutationObserver(watchEnd).observe(timeline, { childList: true });
watchEnd();

function watchEnd() {
  nearEnd.disconnect();
  const end = timeline.querySelector("[data-more='older']");
  if (end) nearEnd.observe(end);
}

async function loadOlder(end) {
  nearEnd.unobserve(end);
  const response = await ask(`${url}/rows?before=${Number(end.dataset.before)}`);
  if (response === null || !end.isConnected) return;
  const holder = document.createElement("template");
  holder.innerHTML = await response.text();
  end.replaceWith(holder.content);
}
