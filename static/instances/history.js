// The timeline's tab: all transitions as a Timeline, or those that the form above lets through; which
// of both, the address says.

import { ask, fragmentOf } from "./parts.js";
import { Timeline } from "./timeline.js";

export class History {
  /** @param {() => number} current the transition that the page shows */
  constructor(page, current) {
    this.url = page.dataset.url;
    this.current = current;
    this.panel = document.getElementById("timeline-panel");
    this.body = this.panel.querySelector("[data-timeline-body]");
    this.bar = this.panel.querySelector("[data-new-rows]");
    this.form = this.panel.querySelector("[data-timeline-form]");
    this.seen = 0; // the newest transition when the top of the list was in view
    this.newest = 0;
    this.form.addEventListener("change", () => this.#filter());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#filter();
    });
    this.body.addEventListener("toggle", ({ target }) => this.#tellWhy(target), { capture: true });
    this.bar.addEventListener("click", () => this.#showNew());
    this.panel.addEventListener("scroll", () => this.#tellNew(), { passive: true });
    this.nearEnd = new IntersectionObserver((entries) => this.#loadMatches(entries), {
      root: this.panel,
      rootMargin: "800px",
    });
    this.#start();
  }

  #start() {
    this.timeline?.stop();
    const list = this.body.querySelector("[data-timeline]");
    this.timeline = list && new Timeline(this.panel, list, (numbers) => this.#blocks(numbers), (block) => this.#dress(block));
    this.newest = Math.max(this.newest, this.timeline?.newest ?? 0);
    this.seen = this.newest;
    this.#watchEnd();
    this.#dress(this.body);
    this.#tellNew();
  }

  /** What to ask for, so that `at` can be shown: numbers of blocks, or "newest". */
  wanted(at, isLive) {
    if (!this.timeline) return "";
    if (isLive) return this.timeline.isFollowing ? "newest" : "";
    return this.timeline.missingAround(at).join(",");
  }

  get isFollowing() {
    return this.timeline?.isFollowing ?? false;
  }

  /** Takes what the server has answered, if anything; the history is `newest` long by now. */
  take(fragment, newest) {
    const wasFollowing = this.isFollowing;
    this.newest = newest;
    this.timeline?.take(fragment, newest);
    if (wasFollowing) this.seen = newest;
    this.#tellNew();
  }

  reveal(seq) {
    this.timeline?.reveal(seq);
  }

  mark() {
    this.#dress(this.body);
  }

  /** Rows say which of them is shown, and which were still to come at that moment. */
  #dress(root) {
    const seq = this.current();
    for (const row of root.querySelectorAll("[data-seq]")) {
      const own = Number(row.dataset.seq);
      row.classList.toggle("later", own > seq);
      if (own === seq) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  /** Asks why an event did nothing, the first time that its row is opened. */
  async #tellWhy(row) {
    if (!row.open || !row.dataset.note || row.dataset.told !== undefined) return;
    row.dataset.told = "";
    const response = await ask(`${this.url}/unheeded/${Number(row.dataset.note)}`);
    if (response === null) delete row.dataset.told;
    else row.querySelector("[data-reason]").replaceChildren(fragmentOf(await response.text()));
  }

  // -------------------------------------------------------------- new rows

  #tellNew() {
    if (this.timeline && this.panel.scrollTop < 1 && this.isFollowing) this.seen = this.newest;
    const count = this.newest - this.seen;
    this.bar.hidden = count <= 0;
    this.bar.textContent = `${count.toLocaleString("en")} new transition${count === 1 ? "" : "s"}`;
  }

  #showNew() {
    this.seen = this.newest;
    if (this.timeline) this.timeline.toTop();
    else this.#reload(new URL(location.href));
    this.#tellNew();
  }

  // -------------------------------------------------------------- the form

  #filter() {
    const url = new URL(location.href);
    const given = new FormData(this.form);
    for (const name of ["event", "source", "lanes"]) {
      if (given.get(name)) url.searchParams.set(name, given.get(name));
      else url.searchParams.delete(name);
    }
    history.pushState(null, "", url);
    return this.#reload(url);
  }

  /** Shows what the address says. */
  async #reload(url) {
    const response = await ask(`${this.url}/timeline${url.search}`);
    if (response === null) return;
    this.body.replaceChildren(fragmentOf(await response.text()));
    this.panel.scrollTop = 0;
    this.#start();
    this.reveal(this.current());
  }

  /** What the address asks for besides a moment. */
  #query() {
    const here = new URLSearchParams(location.search);
    return new URLSearchParams(["event", "source", "lanes"].filter((name) => here.has(name)).map((name) => [name, here.get(name)]));
  }

  async #blocks(numbers) {
    const query = this.#query();
    query.set("blocks", numbers.join(","));
    const response = await ask(`${this.url}/rows?${query}`);
    return response === null ? null : fragmentOf(await response.text());
  }

  #watchEnd() {
    this.nearEnd.disconnect();
    const end = this.body.querySelector("[data-more]");
    if (end) this.nearEnd.observe(end);
  }

  async #loadMatches(entries) {
    const end = entries.find((entry) => entry.isIntersecting)?.target;
    if (!end) return;
    this.nearEnd.unobserve(end);
    const query = this.#query();
    query.set("before", end.dataset.before);
    const response = await ask(`${this.url}/rows?${query}`);
    if (response === null || !end.isConnected) return;
    end.replaceWith(fragmentOf(await response.text()));
    this.#dress(this.body);
    this.#watchEnd();
  }
}
