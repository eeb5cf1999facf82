/** Counts what it is told, calls the outside world for each, and pays by a service. XState 5. */
import { assign, fromPromise, setup } from "xstate";

type Context = { public: { added: number; paid: number; lost: number } };
type Event = { type: "add" | "pay"; n: string; url: string };

export default setup({
  types: { context: {} as Context, events: {} as Event },
  actors: {
    pay: fromPromise(async ({ input }: { input: string }) => (await fetch(input)).status),
  },
  actions: {
    count: assign(({ context }, { what }: { what: keyof Context["public"] }) => ({
      public: { ...context.public, [what]: context.public[what] + 1 },
    })),
    call: (_, { url }: { url: string }) => void fetch(url).catch(() => {}),
  },
}).createMachine({
  context: { public: { added: 0, paid: 0, lost: 0 } },
  initial: "idle",
  states: {
    idle: {
      on: {
        add: {
          actions: [
            { type: "count", params: { what: "added" } },
            { type: "call", params: ({ event }) => ({ url: event.url }) },
          ],
        },
        pay: "paying",
      },
    },
    paying: {
      invoke: {
        src: "pay",
        input: ({ event }) => (event as Event).url,
        onDone: { target: "idle", actions: { type: "count", params: { what: "paid" } } },
        onError: { target: "idle", actions: { type: "count", params: { what: "lost" } } },
      },
    },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
