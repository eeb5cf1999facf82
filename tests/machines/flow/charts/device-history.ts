// Deep history in a parallel state, and one that leads into a region.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "device",
  initial: "off",
  states: {
    off: { on: { POWER: "on", RESTORE: "on.memory" } },
    on: {
      type: "parallel",
      on: { POWER: "off" },
      states: {
        memory: { type: "history", history: "deep" },
        screen: {
          initial: "dim",
          states: {
            dim: { on: { BRIGHTER: "bright" } },
            bright: { on: { DIMMER: "dim" }, after: { 60000: "dim" } },
          },
        },
        sound: {
          initial: "loud",
          states: {
            loud: {
              initial: "music",
              on: { MUTE: "quiet" },
              states: { music: { on: { CALL: "ring" } }, ring: { on: { HANG_UP: "music" } }, last: { type: "history" } },
            },
            quiet: { on: { UNMUTE: "loud.last" } },
          },
        },
      },
    },
  },
});
