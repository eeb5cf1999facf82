/** What parcel-v2.ts upgrades: nested and parallel states, history, a durable timer. XState 4. */
import { assign, createMachine } from "npm:xstate@4";

type Context = { owner: string; public: { touched: number } };
type Event = { type: "load" | "seal" | "touch" | "halt" | "resume" };

export default createMachine({
  schema: { context: {} as Context, events: {} as Event },
  predictableActionArguments: true,
  id: "parcel",
  context: { owner: "", public: { touched: 0 } },
  on: {
    touch: {
      actions: assign({ public: (context) => ({ touched: context.public.touched + 1 }) }),
    },
  },
  initial: "packing",
  states: {
    packing: {
      type: "parallel",
      states: {
        box: { initial: "open", states: { open: { on: { seal: "sealed" } }, sealed: {} } },
        label: { initial: "blank", states: { blank: {} } },
        last: { type: "history", history: "deep" },
      },
      on: { load: "moving", halt: "halted" },
    },
    halted: { on: { resume: "packing.last" } },
    moving: { after: { 3000: "lost" } },
    lost: {},
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
