import { $, $$, click, done, press, result } from "/scripts/helpers.js";
import { flow, redrawn } from "/scripts/panel.js";

const state = (path) => $(`.flow-state[data-node="${path}"]`);
const place = () => [...state("payment").querySelectorAll(":scope > .flow-box")].at(-1).getBoundingClientRect();
const closed = () => $$(".is-folded[data-node]").map((one) => one.dataset.node);

result.before = closed();
flow.show({ active: ["", "payment", "payment.charging"] });
result.leaf = state("payment").classList.contains("is-leaf");
const before = place();
let drawn = redrawn();
click(state("payment").querySelector(".flow-fold"));
await drawn;
result.after = closed();
result.inside = state("payment.charging").classList.contains("is-leaf");
result.moved = Math.hypot(before.x - place().x, before.y - place().y);
drawn = redrawn();
$('[data-flow-do="unfold"]').click();
await drawn;
result.none = closed();
drawn = redrawn();
press("-", $('[role=treeitem][data-node="checking"]'));
await drawn;
result.byKey = closed();
done();
