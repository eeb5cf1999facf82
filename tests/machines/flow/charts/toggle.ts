// The smallest one: two states, one event.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "toggle",
  initial: "inactive",
  states: { inactive: { on: { toggle: "active" } }, active: { on: { toggle: "inactive" } } },
});
