// Times as people say them, kept right while the page is open: <time data-ago datetime="…">.
// The words are those of `ago` in statebacked_site/templatetags/words.py.

const EVERY_MS = 5000;

function refresh() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = inWords(Date.parse(time.dateTime) - Date.now());
    if (time.textContent !== text) time.textContent = text;
  }
}

/** "3 min ago" or "in 2 h"; `distanceMs` is negative for the past. */
export function inWords(distanceMs) {
  const size = duration(Math.abs(distanceMs));
  if (size === "0 s") return "now";
  return distanceMs < 0 ? `${size} ago` : `in ${size}`;
}

/** "2 d", "3 h", "5 min" or "8 s": the largest whole unit. */
export function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

setInterval(refresh, EVERY_MS);
document.addEventListener("htmx:afterSettle", refresh);
