// A chain of guards on one event.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "guess",
  initial: "thinking",
  states: {
    thinking: { entry: "pickNumber", always: "waiting" },
    waiting: {
      on: {
        GUESS: [
          { guard: "isOutOfTries", target: "lost" },
          { guard: "isTooSmall", target: "tooSmall", actions: "countGuess" },
          { guard: "isTooLarge", target: "tooLarge", actions: "countGuess" },
          { guard: "isWayOff", target: "wayOff", actions: ["countGuess", "laugh"] },
          { target: "won" },
        ],
      },
    },
    tooSmall: { after: { 2000: "waiting" } },
    tooLarge: { after: { 2000: "waiting" } },
    wayOff: { after: { 3500: "waiting" } },
    won: { on: { AGAIN: "thinking" } },
    lost: { on: { AGAIN: "thinking" } },
  },
});
