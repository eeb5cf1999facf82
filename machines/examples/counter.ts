/**
 * A counter that belongs to one person and stays within its bounds.
 *
 *   create   {"slug": "visits", "context": {"owner": "ada", "max": 500}}
 *   send     {"event": {"type": "increment", "by": 3}}
 *
 * Shows context that is given at creation, guards that read the event, and rules about who may do
 * what. However many clients send at once, each event counts exactly once.
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Context = {
  owner: string;
  max: number;
  public: { count: number };
};

type Event =
  | { type: "increment"; by?: number }
  | { type: "decrement"; by?: number }
  | { type: "reset" };

export default setup({
  types: {
    context: {} as Context,
    events: {} as Event,
  },
  guards: {
    fits: ({ context }, { change }: { change: number }) => {
      const count = context.public.count + change;
      // False for anything that is no number, too: events come from outside.
      return Number.isInteger(count) && count >= 0 && count <= context.max;
    },
  },
  actions: {
    add: assign({
      public: ({ context }, { change }: { change: number }) => ({
        count: context.public.count + change,
      }),
    }),
    clear: assign({ public: { count: 0 } }),
  },
}).createMachine({
  id: "counter",
  // Whatever is given at creation replaces these.
  context: { owner: "", max: 1_000_000, public: { count: 0 } },
  on: {
    // An event that no guard lets through changes nothing: the answer is the state as it was.
    increment: {
      guard: { type: "fits", params: ({ event }) => ({ change: event.by ?? 1 }) },
      actions: { type: "add", params: ({ event }) => ({ change: event.by ?? 1 }) },
    },
    decrement: {
      guard: { type: "fits", params: ({ event }) => ({ change: -(event.by ?? 1) }) },
      actions: { type: "add", params: ({ event }) => ({ change: -(event.by ?? 1) }) },
    },
    reset: { actions: "clear" },
  },
});

export const allowRead: AllowRead<Context> = () => true;

// People create counters for themselves, anybody signed in may count up, the owner does the rest.
export const allowWrite: AllowWrite<Context> = (request) => {
  const person = request.authContext.sub;
  if (person === undefined) {
    return false;
  }
  if (request.type === "event" && request.event.type === "increment") {
    return true;
  }
  return request.context.owner === person;
};
