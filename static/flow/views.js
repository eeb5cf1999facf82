// Two views of one statechart, of which one is seen: [data-flow-view] with buttons [data-flow-show].

export function attachViews(panel, chart) {
  panel.addEventListener("click", (event) => {
    const button = event.target.closest("[data-flow-show]");
    if (button) show(button.dataset.flowShow);
  });

  function show(name) {
    for (const view of panel.querySelectorAll("[data-flow-view]")) {
      view.hidden = view.dataset.flowView !== name;
    }
    for (const button of panel.querySelectorAll("[data-flow-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.flowShow === name));
    }
    chart.tell("flow:views", { view: name });
  }
}
