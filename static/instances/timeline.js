// The timeline: any number of transitions, of which only those near the window are in the page.
//
// The history is cut into blocks of data-size transitions. Blocks near the window are asked for and
// put in place, others are taken out, and two empty boxes stand for all that is above and below.
// Whatever changes, the row that somebody looks at stays where it is on the screen.

const ROW_PX = 50; // a guess, until rows were measured
const AHEAD_PX = 700;
const KEPT_MAX = 400; // blocks that are kept, whether they are in the page or not
const SETTLE_MS = 50; // what is scrolled past in less is not asked for
const ASKED_MAX = 12; // blocks in one request; the server gives no more
const BLOCKS_MAX = 25_000; // browsers can't show boxes that are higher than some 17 million pixels
const HEAD_PX = 64; // what stays above the rows: the filters, and the names of lanes
const TOP_PX = 8;
const PLACE = 0.25; // of the window's height: where a row stands that was jumped to

export class Timeline {
  /**
   * @param {HTMLElement} panel the element that scrolls
   * @param {HTMLElement} list [data-timeline], with what the server has rendered
   * @param {(numbers: number[]) => Promise<DocumentFragment | null>} get blocks from the server
   * @param {(root: Element) => void} dress called for each block that is put into the page
   */
  constructor(panel, list, get, dress) {
    this.panel = panel;
    this.list = list;
    this.get = get;
    this.dress = dress;
    this.size = Number(list.dataset.size);
    this.newest = Number(list.dataset.newest);
    this.above = list.querySelector("[data-space='above']");
    this.below = list.querySelector("[data-space='below']");
    this.blocks = new Map(); // by number; those used last are at the end
    this.heights = new Map();
    this.asked = new Set();
    this.timer = 0;
    this.frame = 0;
    for (const block of list.querySelectorAll("[data-block]")) {
      this.blocks.set(Number(block.dataset.block), block);
      dress(block);
    }
    this.center = Math.min(...this.blocks.keys());
    this.onScroll = () => this.#later();
    panel.addEventListener("scroll", this.onScroll, { passive: true });
    this.observer = new ResizeObserver(this.onScroll);
    this.observer.observe(panel);
    this.#arrange();
  }

  stop() {
    this.panel.removeEventListener("scroll", this.onScroll);
    this.observer.disconnect();
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
  }

  /** Whether the newest row is in view and nobody is about to click something else. */
  get isFollowing() {
    return this.panel.scrollTop < TOP_PX && !this.list.matches(":hover");
  }

  row(seq) {
    return this.blocks.get(this.#blockOf(seq))?.querySelector(`[data-seq="${Number(seq)}"]`) ?? null;
  }

  /** The blocks that must be asked for before `seq` can be shown among its neighbours. */
  missingAround(seq, above = 6, below = 16) {
    const first = this.#blockOf(Math.min(seq + above, this.newest));
    const last = this.#blockOf(Math.max(seq - below, 1));
    const numbers = Array.from({ length: first - last + 1 }, (_, i) => first - i);
    return numbers.filter((number) => !this.blocks.has(number));
  }

  /** Takes blocks that the server has rendered; `newest` is the history's length by now. */
  take(fragment, newest = this.newest) {
    this.#keepPlace(() => {
      this.#grow(newest);
      for (const block of fragment?.querySelectorAll("[data-block]") ?? []) this.#put(block);
      this.#arrange();
    });
  }

  /** Brings a row into view: a little if it is near, else to a quarter of the height. */
  reveal(seq) {
    if (this.panel.clientHeight === 0) return;
    if (seq === this.newest) return this.toTop();
    const number = this.#blockOf(seq);
    if (number < this.#low || number > this.#high) this.center = number;
    let row = this.row(seq);
    if (!row?.isConnected || !this.#isNear(row)) {
      const before = (number + 1) * this.size - seq; // rows of the block that stand above it
      this.panel.scrollTop = this.#top(number) + before * this.#rowPx - this.panel.clientHeight * PLACE;
      this.#arrange();
      row = this.row(seq);
      if (!row) return;
      this.panel.scrollTop += this.#onScreen(row) - this.panel.clientHeight * PLACE;
      this.#arrange();
    }
    this.#scrollTo(row);
  }

  /** By as little as need be. Not by scrollIntoView: that moves the page around the panel as well. */
  #scrollTo(row) {
    const top = this.#onScreen(row) - HEAD_PX;
    const below = this.#onScreen(row) + row.offsetHeight - this.panel.clientHeight;
    if (top < 0) this.panel.scrollTop += top;
    else if (below > 0) this.panel.scrollTop += below;
  }

  toTop() {
    this.center = this.#blockOf(this.newest);
    this.panel.scrollTop = 0;
    this.#arrange();
  }

  // -------------------------------------------------------------- where blocks are

  #blockOf(seq) {
    return Math.floor((seq - 1) / this.size);
  }

  get #high() {
    return Math.min(this.#blockOf(this.newest), this.center + BLOCKS_MAX / 2);
  }

  get #low() {
    return Math.max(0, this.#high - BLOCKS_MAX);
  }

  get #rowPx() {
    let px = 0;
    for (const height of this.heights.values()) px += height;
    return this.heights.size > 0 ? px / (this.heights.size * this.size) : ROW_PX;
  }

  #height(number, rowPx) {
    const rows = Math.min(this.size, this.newest - number * this.size);
    return this.heights.get(number) ?? rows * rowPx;
  }

  /** Where a block begins, from the top of the panel's content. */
  #top(number) {
    const rowPx = this.#rowPx;
    let y = this.#listTop;
    for (let above = this.#high; above > number; above--) y += this.#height(above, rowPx);
    return y;
  }

  get #listTop() {
    return this.#onScreen(this.list) + this.panel.scrollTop;
  }

  #onScreen(element) {
    return element.getBoundingClientRect().top - this.panel.getBoundingClientRect().top;
  }

  #isNear(row) {
    const y = this.#onScreen(row);
    return y > -this.panel.clientHeight && y < 2 * this.panel.clientHeight;
  }

  // -------------------------------------------------------------- the page

  #grow(newest) {
    if (newest <= this.newest) return;
    const partial = this.#blockOf(this.newest);
    if (this.newest % this.size !== 0) {
      this.heights.delete(partial);
      if (this.blocks.has(partial)) this.blocks.get(partial).dataset.stale = "";
    }
    this.newest = newest;
  }

  #put(block) {
    const number = Number(block.dataset.block);
    const before = this.blocks.get(number);
    if (before) keepOpen(before, block);
    before?.replaceWith(block);
    this.blocks.delete(number);
    this.blocks.set(number, block);
    this.asked.delete(number);
    this.dress(block);
  }

  #later() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#keepPlace(() => this.#arrange());
    });
  }

  /** Puts the blocks near the window into the page, and takes the others out. */
  #arrange(wanted = this.#near()) {
    const rowPx = this.#rowPx;
    for (const block of this.list.querySelectorAll("[data-block]")) {
      const number = Number(block.dataset.block);
      if (!wanted.includes(number) || (this.blocks.get(number) ?? block) !== block) block.remove();
    }
    let after = this.above;
    for (const number of wanted) {
      const block = this.blocks.get(number) ?? this.#waiting(number);
      if (block.classList.contains("waiting")) block.style.height = `${this.#height(number, rowPx)}px`;
      if (after.nextElementSibling !== block) after.after(block);
      after = block;
    }
    for (const number of wanted) {
      const block = this.blocks.get(number);
      if (block && block.offsetHeight > 0) this.heights.set(number, block.offsetHeight);
    }
    this.#stretch(wanted);
    this.#forget(wanted);
    this.#askFor(wanted.filter((number) => !this.blocks.has(number) || this.blocks.get(number).hasAttribute("data-stale")));
  }

  #near() {
    const from = this.panel.scrollTop - AHEAD_PX;
    const to = this.panel.scrollTop + this.panel.clientHeight + AHEAD_PX;
    const rowPx = this.#rowPx;
    const near = [];
    let y = this.#listTop;
    for (let number = this.#high; number >= this.#low && y < to; number--) {
      y += this.#height(number, rowPx);
      if (y > from) near.push(number);
    }
    return near;
  }

  #waiting(number) {
    const found = this.list.querySelector(`[data-block="${number}"]`);
    if (found) return found;
    const block = document.createElement("div");
    block.className = "waiting";
    block.dataset.block = String(number);
    return block;
  }

  #stretch(wanted) {
    const rowPx = this.#rowPx;
    let above = 0;
    let below = 0;
    for (let number = this.#high; number >= this.#low; number--) {
      if (number > wanted[0]) above += this.#height(number, rowPx);
      else if (number < wanted.at(-1)) below += this.#height(number, rowPx);
    }
    this.above.style.height = `${above}px`;
    this.below.style.height = `${below}px`;
  }

  #forget(wanted) {
    for (const number of wanted) {
      const block = this.blocks.get(number);
      if (!block) continue;
      this.blocks.delete(number);
      this.blocks.set(number, block);
    }
    for (const number of this.blocks.keys()) {
      if (this.blocks.size <= KEPT_MAX) break;
      this.blocks.delete(number);
    }
  }

  #askFor(missing) {
    clearTimeout(this.timer);
    const numbers = missing.filter((number) => !this.asked.has(number)).slice(0, ASKED_MAX);
    if (numbers.length === 0) return;
    this.timer = setTimeout(async () => {
      for (const number of numbers) this.asked.add(number);
      const fragment = await this.get(numbers);
      for (const number of numbers) this.asked.delete(number);
      if (fragment !== null) this.take(fragment);
    }, SETTLE_MS);
  }

  /** Does something, and has the row in view where it was before. */
  #keepPlace(change) {
    const anchor = this.isFollowing ? null : this.#anchor();
    const before = anchor ? this.#onScreen(anchor) : 0;
    change();
    if (!anchor) return;
    const row = anchor.isConnected ? anchor : this.row(anchor.dataset.seq);
    if (!row?.isConnected) return;
    const moved = this.#onScreen(row) - before;
    if (Math.abs(moved) >= 1) this.panel.scrollTop += moved;
  }

  /** The row under the pointer, or the first one that is seen. */
  #anchor() {
    const hovered = this.list.querySelector("[data-seq]:hover");
    if (hovered) return hovered;
    for (const block of this.list.querySelectorAll("ol[data-block]")) {
      if (this.#onScreen(block) + block.offsetHeight <= 0) continue;
      for (const row of block.querySelectorAll("[data-seq]")) {
        if (this.#onScreen(row) >= 0) return row;
      }
    }
    return null;
  }
}

/** Reasons that somebody has opened stay open when their block is replaced. */
function keepOpen(before, block) {
  for (const open of before.querySelectorAll("details[data-note][open]")) {
    const closed = block.querySelector(`details[data-note="${Number(open.dataset.note)}"]`);
    closed?.replaceWith(open);
  }
}
