/** A durable timer that is started by creating the instance. */
import { setup } from "xstate";

export default setup({
  types: { context: {} as { delayMs: number } },
  delays: { given: ({ context }) => context.delayMs },
}).createMachine({
  context: { delayMs: 3000 },
  initial: "waiting",
  states: {
    waiting: { after: { given: "rung" } },
    rung: { type: "final" },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
