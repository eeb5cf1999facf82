// Comes to its end with an output.
import { createMachine } from "npm:xstate";

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  predictableActionArguments: PREDICTABLE,
  id: "endings",
  context: { sum: 3 },
  initial: "on",
  states: {
    on: { on: { end: "off" } },
    off: { type: "final", data: (context) => ({ sum: context.sum }) },
  },
});
