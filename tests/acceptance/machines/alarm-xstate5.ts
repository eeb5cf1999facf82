/** Durable timers: `after`, a delayed event with an id, and one whose transition throws. XState 5. */
import { assign, cancel, raise, setup } from "xstate";

type Context = { delayMs: number; public: { rung: number; reminded: number } };
type Event =
  | { type: "start" | "remind" | "boom"; delayMs: number }
  | { type: "stop" | "forget" | "reminder" | "explode" };

export default setup({
  types: { context: {} as Context, events: {} as Event },
  delays: {
    given: ({ context }) => context.delayMs,
    inEvent: ({ event }) => (event as { delayMs: number }).delayMs,
  },
  actions: {
    keepDelay: assign({ delayMs: ({ event }) => (event as { delayMs: number }).delayMs }),
    ring: assign({
      public: ({ context }) => ({ ...context.public, rung: context.public.rung + 1 }),
    }),
    countReminder: assign({
      public: ({ context }) => ({ ...context.public, reminded: context.public.reminded + 1 }),
    }),
    explode: assign(() => {
      throw new Error("the timer's transition threw");
    }),
  },
}).createMachine({
  context: { delayMs: 0, public: { rung: 0, reminded: 0 } },
  on: {
    remind: { actions: raise({ type: "reminder" }, { delay: "inEvent", id: "reminder" }) },
    forget: { actions: cancel("reminder") },
    reminder: { actions: "countReminder" },
    boom: { actions: raise({ type: "explode" }, { delay: "inEvent", id: "explode" }) },
    explode: { actions: "explode" },
  },
  initial: "idle",
  states: {
    idle: { on: { start: { target: "waiting", actions: "keepDelay" } } },
    waiting: {
      after: { given: { target: "rung", actions: "ring" } },
      on: {
        start: { target: "waiting", reenter: true, actions: "keepDelay" },
        stop: "idle",
      },
    },
    rung: {},
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
