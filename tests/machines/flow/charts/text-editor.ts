// Regions that know nothing of each other.
import { createMachine } from "npm:xstate@5";

const switchable = (event: string) => ({
  initial: "off",
  states: { off: { on: { [event]: "on" } }, on: { on: { [event]: "off" } } },
});

export default createMachine({
  id: "textEditor",
  type: "parallel",
  states: {
    bold: switchable("TOGGLE_BOLD"),
    italic: switchable("TOGGLE_ITALIC"),
    underline: switchable("TOGGLE_UNDERLINE"),
    list: {
      initial: "none",
      states: {
        none: { on: { BULLETS: "bullets", NUMBERS: "numbers" } },
        bullets: { on: { NONE: "none", NUMBERS: "numbers" } },
        numbers: { on: { BULLETS: "bullets", NONE: "none" } },
      },
    },
  },
});
