import { $, $$, done, result } from "/scripts/helpers.js";
import { flow } from "/scripts/panel.js";

const classes = (path) => [...$(`.flow-state[data-node="${path}"]`).classList].filter((name) => /active|leaf/.test(name));
const transitions = (selector) => $$(selector).map((one) => one.dataset.transition);

flow.show({ active: ["", "loading"], taken: 0, next: [1], blocked: { 2: "not yet" } });
result.active = { root: classes(""), loading: classes("loading"), idle: classes("idle") };
result.taken = transitions(".flow-event.is-taken");
result.wires = $$(".flow-edge.is-taken > .flow-wire").length;
result.next = transitions(".flow-event.is-next");
result.reason = $(".is-blocked > title").textContent;
result.current = $$("[aria-current]").map((one) => one.dataset.node);
result.said = $(".flow-said").textContent;

flow.show({ active: ["", "success"] });
result.then = { loading: classes("loading"), success: classes("success") };
result.left = $$(".is-taken, .is-next, .is-blocked, .flow-reason").length;

flow.show({ active: ["", "of an older version"] });
result.unknown = { lit: $$(".is-active").length, current: $$("[aria-current]").map((one) => one.dataset.node), said: $(".flow-said").textContent };

flow.decorate({ states: { idle: "heat-3" }, transitions: { 0: "t3" }, badges: { idle: 212 } });
result.heat = $$(".heat-3").map((one) => one.dataset.node);
result.traffic = $(".flow-edge.t3").dataset.transitions;
result.badge = $(".flow-badge").textContent;
flow.decorate({});
result.plain = $$(".heat-3, .t3, .flow-badge").length;
done();
