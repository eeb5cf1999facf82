// A panel that was brought to life, and the events that come from it.

import { attach } from "/static/flow/flow.js";
import { $, result } from "/scripts/helpers.js";

export const flow = attach($("[data-flow-panel]"));
export const box = $("[data-flow]");
result.events = [];
for (const name of ["select", "send", "fold", "error"]) {
  box.addEventListener(`flow:${name}`, ({ detail }) => result.events.push([name, detail]));
}

/** Resolves when a picture has been replaced. */
export function redrawn() {
  return new Promise((resolve) => box.addEventListener("flow:fold", resolve, { once: true }));
}
