// Comes to its end with an output.
import { createMachine } from "npm:xstate@5";

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  context: { sum: 3 },
  initial: "on",
  states: { on: { on: { end: "off" } }, off: { type: "final" } },
  output: ({ context }) => ({ sum: context.sum }),
});
