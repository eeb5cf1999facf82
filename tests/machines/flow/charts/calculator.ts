// Dense: nearly every state leads to nearly every other one.
import { createMachine } from "npm:xstate@5";

const number = (name: string) => ({
  initial: "zero",
  on: { CLEAR_ENTRY: { target: `.zero`, actions: "clearEntry" } },
  states: {
    zero: { on: { NUMBER: { target: "beforePoint", actions: "setDigit" }, POINT: "afterPoint" } },
    beforePoint: { on: { NUMBER: { actions: "appendDigit" }, POINT: { target: "afterPoint", actions: "appendPoint" } } },
    afterPoint: { on: { NUMBER: { actions: "appendDigit" } } },
  },
  entry: `start ${name}`,
});

export default createMachine({
  id: "calculator",
  initial: "start",
  on: { CLEAR: { target: ".start", actions: "reset" } },
  states: {
    start: { on: { NUMBER: { target: "operand1.beforePoint", actions: "setDigit" }, MINUS: "negative1", POINT: "operand1.afterPoint" } },
    negative1: { on: { NUMBER: "operand1.beforePoint", CLEAR_ENTRY: "start" } },
    operand1: { ...number("first"), on: { OPERATOR: { target: "operator", actions: "keepOperator" }, CLEAR_ENTRY: "start" } },
    operator: { on: { OPERATOR: { actions: "keepOperator" }, NUMBER: "operand2.beforePoint", MINUS: "negative2" } },
    negative2: { on: { NUMBER: "operand2.beforePoint", CLEAR_ENTRY: "operator" } },
    operand2: {
      ...number("second"),
      on: { EQUALS: [{ guard: "dividesByZero", target: "alert" }, { target: "result", actions: "compute" }], OPERATOR: { target: "operator", actions: ["compute", "keepOperator"] } },
    },
    result: { on: { NUMBER: "operand1.beforePoint", OPERATOR: "operator", PERCENT: { actions: "percent" } } },
    alert: { on: { OK: "operand2" } },
  },
});
