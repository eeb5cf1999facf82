// Nested states, an event of the parent's, and descriptions.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "walk",
  description: "What a dog does all day.",
  initial: "asleep",
  states: {
    asleep: { description: "On the sofa, although that is not allowed.", on: { "wakes up": "awake" } },
    awake: {
      initial: "indoors",
      on: { "falls asleep": "asleep" },
      states: {
        indoors: { on: { "leash is taken": { target: "outdoors", description: "Only with the leash." } } },
        outdoors: {
          initial: "walking",
          on: { "comes home": "indoors" },
          states: {
            walking: { entry: "sniff", on: { "speeds up": "running", "sees a squirrel": { target: "running", actions: "bark" } } },
            running: { on: { "slows down": "walking", "gets tired": { target: "#walk.asleep", actions: "liesDown" } } },
          },
        },
      },
    },
  },
});
