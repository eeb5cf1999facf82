// In every page of `bench --pages`: measures what a person would see, frame by frame.
// Put in by the debugger before the page's own scripts, since its policy allows no others.

(() => {
  const GIVE_UP_MS = 20_000;

  const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const leaf = () => document.querySelector(".flow-state.is-leaf")?.dataset.node ?? null;
  const epochMs = () => performance.timeOrigin + performance.now();

  /** Milliseconds from `since` until `isSo()`, looked at in every frame. */
  async function until(isSo, since, what) {
    while (!isSo()) {
      if (performance.now() - since > GIVE_UP_MS) throw new Error(`the page did not show ${what}`);
      await nextFrame();
    }
    return performance.now() - since;
  }

  /** Since the page was asked for: its first paint, its rows, its lit diagram. */
  async function open() {
    const rows = await until(() => document.querySelector("[data-seq]"), 0, "rows");
    const lit = await until(() => leaf() !== null, 0, "where the instance is");
    const paint = () => performance.getEntriesByName("first-contentful-paint")[0];
    await until(() => paint() !== undefined, 0, "anything");
    return { paint: paint().startTime, rows, lit };
  }

  /** From letting the slider go to the row and the lights of that moment. */
  function jump(seq) {
    const slider = document.querySelector("[data-scrub]");
    const since = performance.now();
    slider.value = seq;
    slider.dispatchEvent(new Event("change", { bubbles: true }));
    const isThere = () =>
      document.querySelector(`[data-seq="${seq}"][aria-current]`) !== null &&
      JSON.parse(document.getElementById("lights").dataset.lights).seq === seq;
    return until(isThere, since, `transition ${seq}`);
  }

  let frames = null;

  /** Note how long each frame takes, until `frameTimes()`. */
  function watchFrames() {
    const mine = (frames = []);
    let last = performance.now();
    requestAnimationFrame(function frame() {
      const now = performance.now();
      mine.push(now - last);
      last = now;
      if (frames === mine) requestAnimationFrame(frame);
    });
  }

  function frameTimes() {
    const taken = frames;
    frames = null;
    return taken;
  }

  let moved = null;

  /** Note when the diagram shows another state, until `movedAt()`. */
  function watchMove() {
    const before = leaf();
    moved = until(() => leaf() !== before && leaf() !== null, performance.now(), "the new state").then(epochMs);
    moved.catch(() => {}); // whoever asks is told
  }

  const opened = open(); // looked at from the first frame on
  opened.catch(() => {}); // whoever asks is told; a page of another kind has nobody who asks
  window.bench = { opened: () => opened, jump, watchFrames, frameTimes, watchMove, movedAt: () => moved };
})();
