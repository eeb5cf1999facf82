import { $, done, press, result } from "/scripts/helpers.js";
import { box, flow } from "/scripts/panel.js";

const view = () => $("svg.flow").getAttribute("viewBox").split(" ").map(Number);
const wheel = (options) => box.dispatchEvent(new WheelEvent("wheel", { cancelable: true, ...options }));
const isMapShown = () => !$(".flow-map").hasAttribute("hidden");

result.whole = view();
press("+", box);
result.percent = $("[data-flow-zoom]").textContent;
result.nearer = view();
press("ArrowRight", box);
result.right = view();
press("0", box);
result.again = view();
wheel({ deltaY: -200, ctrlKey: true, clientX: 450, clientY: 300 });
result.wheel = view();
wheel({ deltaX: 40, deltaY: 20 });
result.panned = view();
flow.show({ active: ["", "idle"] });
press("f", box);
result.active = view();
result.map = isMapShown();
$('[data-flow-do="fit"]').click();
result.fitted = view();
result.mapThen = isMapShown();
done();
