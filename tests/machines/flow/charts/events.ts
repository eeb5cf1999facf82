// Wildcards, forbidden events, re-entry, and events that only do something.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "events",
  initial: "listening",
  states: {
    listening: {
      on: {
        "mouse.*": "following",
        "key.down": { actions: "type" },
        RESIZE: {},
        REFRESH: { target: "listening", reenter: true, actions: "draw" },
        PING: { target: "listening" },
        "*": { actions: "complain" },
      },
    },
    following: { on: { "mouse.up": "listening", "*": "confused" } },
    confused: { after: { 100: "listening" } },
  },
});
