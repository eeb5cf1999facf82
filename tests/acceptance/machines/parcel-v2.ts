/** The parcel's second version: `packing` is named `packed`, `moving` lies in `away`. XState 5. */
import { assign, setup } from "xstate";

type Context = { public: { owner: string; touched: number; upgraded: boolean } };
type Event = { type: "load" | "seal" | "touch" | "halt" | "resume" | "deliver" };

export default setup({ types: { context: {} as Context, events: {} as Event } }).createMachine({
  id: "parcel",
  context: { public: { owner: "", touched: 0, upgraded: false } },
  on: {
    touch: {
      actions: assign({
        public: ({ context }) => ({ ...context.public, touched: context.public.touched + 10 }),
      }),
    },
  },
  initial: "packed",
  states: {
    packed: {
      type: "parallel",
      states: {
        box: { initial: "open", states: { open: { on: { seal: "sealed" } }, sealed: {} } },
        label: { initial: "blank", states: { blank: {} } },
        last: { type: "history", history: "deep" },
      },
      on: { load: "away", halt: "halted" },
    },
    halted: { on: { resume: "packed.last" } },
    away: {
      initial: "moving",
      states: { moving: { after: { 3000: "#parcel.missing" } } },
      on: { deliver: "home" },
    },
    missing: {},
    home: { type: "final" },
  },
});

export const allowRead = () => true;
export const allowWrite = ({ authContext }: { authContext: { sub?: string } }) =>
  authContext.sub !== "stranger";
