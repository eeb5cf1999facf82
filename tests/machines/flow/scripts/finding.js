import { $, $$, done, press, result, wait } from "/scripts/helpers.js";
import { redrawn } from "/scripts/panel.js";

const input = $("[data-flow-find]"), output = $("[data-flow-found]");
function type(words) {
  input.value = words;
  input.dispatchEvent(new Event("input"));
}

type("declined");
result.found = output.textContent;
const drawn = redrawn();
press("Enter", input);
await drawn;
await wait(0); // for what follows the drawing
result.at = output.textContent;
result.selected = $$(".is-selected[data-node]").map((one) => one.dataset.node);
result.marked = $$(".is-found[data-node]").map((one) => one.dataset.node);
type("no such thing");
result.nothing = output.textContent;
press("Escape", input);
result.cleared = [input.value, output.textContent, $$(".is-found").length];
done();
