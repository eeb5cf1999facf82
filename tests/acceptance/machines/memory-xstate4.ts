/** Everything that an instance must remember while it is unloaded. XState 4. */
import { assign, createMachine } from "npm:xstate@4";
import type { DoneInvokeEvent } from "npm:xstate@4";

type Context = {
  seen: string[];
  at?: unknown;
  gap?: unknown;
  public: { steps: number; kinds: string };
};
type Event = {
  type: "next" | "back" | "off" | "on" | "mark" | "look" | "ask" | "finish";
};

const see = (context: Context, what: string) => ({
  seen: [...context.seen, what],
  public: { ...context.public, steps: context.public.steps + 1 },
});

export default createMachine(
  {
    id: "memory",
    schema: { context: {} as Context, events: {} as Event },
    predictableActionArguments: true,
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
              one: { on: { next: { target: "two", actions: "seeTwo" } } },
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
        invoke: { src: "answer", onDone: { target: "resting", actions: "seeAnswer" } },
      },
      finished: { type: "final" },
    },
  },
  {
    services: { answer: async () => "an answer" },
    actions: {
      seeTwo: assign((context) => see(context, "two")),
      seeAnswer: assign((context, event) => see(context, (event as DoneInvokeEvent<string>).data)),
      // Values that JSON does not know: what they become must not depend on a reload.
      mark: assign({
        at: () => new Date(0),
        gap: () => ({ nothing: undefined, map: new Map([[1, 2]]) }),
      }),
      look: assign({
        public: (context) => ({
          ...context.public,
          kinds: `${typeof context.at} ${JSON.stringify(context.gap)}`,
        }),
      }),
    },
  },
);

export const allowRead = () => true;
export const allowWrite = () => true;
