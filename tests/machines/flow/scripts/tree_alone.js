import { $, $$, done, press, result } from "/scripts/helpers.js";
import { attach } from "/static/flow/flow.js";

const flow = attach($("[data-flow-panel]"));
const current = () => $$("[aria-current]").map((one) => one.dataset.node);

flow.show({ active: ["", "loading"], taken: 0, next: [1] });
result.current = current();
result.said = $(".flow-said").textContent;
result.next = $$(".is-next").map((one) => one.dataset.transition);
result.sent = [];
$("[data-flow-panel]").addEventListener("flow:send", ({ detail }) => result.sent.push(detail.transition));
const next = $(".is-next");
next.focus();
press("Enter", next);

flow.show({ active: ["", "success"] });
result.then = current();
done();
