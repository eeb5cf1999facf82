import { $$, done, result } from "/scripts/helpers.js";
import { flow } from "/scripts/panel.js";

const paths = $$(".flow-state[data-node]").map((one) => one.dataset.node);
result.elements = $$("script, img, style").map((one) => one.localName);
flow.show({ active: paths });
for (const path of paths) {
  flow.select({ path });
}
result.states = paths.length;
result.active = $$(".is-active[data-node]").length;
done();
