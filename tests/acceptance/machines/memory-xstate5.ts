/** Everything that an instance must remember while it is unloaded. XState 5. */
import { assign, fromPromise, setup } from "xstate";

type Context = {
  seen: string[];
  at?: unknown;
  gap?: unknown;
  public: { steps: number; kinds: string };
};
type Event = {
  type: "next" | "back" | "off" | "on" | "mark" | "look" | "ask" | "finish";
};

export default setup({
  types: { context: {} as Context, events: {} as Event },
  actors: { answer: fromPromise(async () => "an answer") },
  actions: {
    see: assign(({ context }, { what }: { what: string }) => ({
      seen: [...context.seen, what],
      public: { ...context.public, steps: context.public.steps + 1 },
    })),
    // Values that JSON does not know: what they become must not depend on a reload.
    mark: assign({
      at: () => new Date(0),
      gap: () => ({ nothing: undefined, map: new Map([[1, 2]]) }),
    }),
    look: assign({
      public: ({ context }) => ({
        ...context.public,
        kinds: `${typeof context.at} ${JSON.stringify(context.gap)}`,
      }),
    }),
  },
}).createMachine({
  id: "memory",
  context: { seen: [], public: { steps: 0, kinds: "" } },
  initial: "working",
  states: {
    working: {
      type: "parallel",
      on: { off: "resting", mark: { actions: "mark" }, look: { actions: "look" } },
      states: {
        track: {
          initial: "one",
          states: {
            one: {
              on: { next: { target: "two", actions: { type: "see", params: { what: "two" } } } },
            },
            two: {
              initial: "left",
              tags: "second",
              states: {
                left: { on: { next: "right" } },
                right: { tags: "deep", on: { back: "left" } },
              },
            },
          },
        },
        before: { type: "history", history: "deep" },
        light: {
          initial: "green",
          states: {
            green: { on: { next: "red" } },
            red: { tags: "stop", on: { next: "green" } },
          },
        },
      },
    },
    resting: {
      on: { on: "#memory.working.before", ask: "asking", finish: "finished" },
    },
    asking: {
      invoke: {
        src: "answer",
        onDone: {
          target: "resting",
          actions: { type: "see", params: ({ event }) => ({ what: event.output }) },
        },
      },
    },
    finished: { type: "final" },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
