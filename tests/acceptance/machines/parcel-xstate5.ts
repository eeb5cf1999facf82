/** What parcel-v2.ts upgrades: nested and parallel states, history, a durable timer. XState 5. */
import { assign, setup } from "xstate";

type Context = { owner: string; public: { touched: number } };
type Event = { type: "load" | "seal" | "touch" | "halt" | "resume" };

export default setup({ types: { context: {} as Context, events: {} as Event } }).createMachine({
  id: "parcel",
  context: { owner: "", public: { touched: 0 } },
  on: {
    touch: {
      actions: assign({
        public: ({ context }) => ({ touched: context.public.touched + 1 }),
      }),
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
