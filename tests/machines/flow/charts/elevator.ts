// Guards that decide where to go, and two regions that wait for each other.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "elevator",
  type: "parallel",
  states: {
    car: {
      initial: "idle",
      states: {
        idle: {
          on: {
            CALL: [
              { guard: "isAbove", target: "goingUp" },
              { guard: "isBelow", target: "goingDown" },
              { target: "arrived" },
            ],
          },
        },
        goingUp: { always: { guard: "isThere", target: "arrived" }, after: { floorTime: { target: "goingUp", reenter: true, actions: "countUp" } } },
        goingDown: { always: { guard: "isThere", target: "arrived" }, after: { floorTime: { target: "goingDown", reenter: true, actions: "countDown" } } },
        arrived: { entry: { type: "ring" }, on: { CLOSED: [{ guard: "hasNextCall", target: "idle" }] } },
      },
    },
    door: {
      initial: "closed",
      states: {
        closed: { on: { OPEN: { guard: "hasArrived", target: "opening" } } },
        opening: { after: { 2000: "open" } },
        open: { after: { 5000: "closing" }, on: { HOLD: { target: "open", reenter: true } } },
        closing: { on: { BLOCKED: "opening" }, after: { 2000: { target: "closed", actions: "tellCar" } } },
      },
    },
  },
});
