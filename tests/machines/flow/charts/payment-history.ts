// Shallow history: back to the way of paying that was chosen before.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "payment",
  initial: "method",
  states: {
    method: {
      initial: "cash",
      states: {
        cash: { on: { SWITCH_CHECK: "check" } },
        check: { on: { SWITCH_CASH: "cash" } },
        before: { type: "history", target: "cash" },
      },
      on: { NEXT: "review" },
    },
    review: { on: { PREVIOUS: "method.before", CONFIRM: "done" } },
    done: { type: "final" },
  },
});
