import { $, $$, click, done, press, result } from "/scripts/helpers.js";
import { flow } from "/scripts/panel.js";

const tree = $("[role=tree]");
const name = (one) => one.dataset.node ?? one.dataset.transition;
const chosen = () => [$$(".flow-view .is-selected").map(name), $$('[aria-selected="true"]').map(name)];
const words = () => $('.flow-event[data-transition="0"] > .flow-pill');

click($('.flow-state[data-node="idle"] > .flow-box'));
result.clicked = chosen();
click(words());
result.words = chosen();
tree.querySelector('[tabindex="0"]').focus();
result.focused = document.activeElement.dataset.transition;
press("ArrowDown");
result.down = chosen();
press("ArrowLeft"); // closes it
press("ArrowLeft"); // and goes to what it is in
result.left = chosen();
press("Home");
press("ArrowRight");
result.first = chosen();
press("End");
result.last = chosen();
result.tabs = $$('[role=treeitem][tabindex="0"]').length;
flow.show({ active: ["", "idle"], next: [0] });
click(words());
done();
