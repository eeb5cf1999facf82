// Delays, and a state inside a state with its own way to the end.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "trafficLight",
  initial: "green",
  states: {
    green: { after: { 30000: "yellow" } },
    yellow: { after: { 3000: "red" } },
    red: {
      initial: "walk",
      onDone: "green",
      states: {
        walk: { entry: "showWalking", after: { 15000: "wait" } },
        wait: { on: { countdown: { target: "wait", reenter: true, guard: "timeLeft" } }, after: { 10000: "stop" } },
        stop: { type: "final" },
      },
    },
    blinking: { after: { 500: { actions: "blink", reenter: true, target: "blinking" } } },
  },
  on: { powerOut: ".blinking", powerBack: ".red" },
});
