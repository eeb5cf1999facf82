// Several targets at once, and edges across borders in both directions.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "fork",
  initial: "outside",
  states: {
    outside: {
      on: {
        BOTH: { target: ["#left2", "#right2"] },
        ONE: "#right2",
        REGION: "inside.left",
      },
    },
    inside: {
      type: "parallel",
      on: { LEAVE: "outside", RESET: { target: ["#left1", "#right1"] } },
      onDone: "finished",
      states: {
        left: {
          initial: "one",
          on: { LEFT_OUT: "#fork.outside" },
          states: {
            one: { id: "left1", on: { NEXT: "two", CROSS: "#right2", UP: "#fork.inside.left" } },
            two: { id: "left2", on: { NEXT: "three", OUT: "#fork.finished" } },
            three: { type: "final" },
          },
        },
        right: {
          initial: "one",
          states: { one: { id: "right1", on: { NEXT: "two" } }, two: { id: "right2", on: { NEXT: "three", BACK: "#left1" } }, three: { type: "final" } },
        },
      },
    },
    finished: { type: "final" },
  },
});
