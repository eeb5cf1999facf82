/**
 * The support ticket with a second thought: what is not closed may be escalated, and is in one
 * state now, with the two that there were as its parts. The subject has become public.
 *
 *   send     {"event": "escalate"}
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

export type Context = {
  public: { subject: string; answers: number; priority: "normal" | "high" };
};

type Event = { type: "answer" } | { type: "reply" } | { type: "escalate" };

export default setup({
  types: { context: {} as Context, events: {} as Event, input: {} as { subject?: string } },
}).createMachine({
  id: "ticket",
  context: ({ input }) => ({
    public: { subject: input.subject ?? "", answers: 0, priority: "normal" },
  }),
  initial: "active",
  states: {
    active: {
      initial: "open",
      states: {
        open: {
          on: {
            answer: {
              target: "waiting",
              actions: assign({
                public: ({ context }) => ({
                  ...context.public,
                  answers: context.public.answers + 1,
                }),
              }),
            },
          },
        },
        waiting: {
          after: { 600_000: "#ticket.closed" },
          on: { reply: "open" },
        },
      },
      on: {
        escalate: {
          actions: assign({
            public: ({ context }) => ({ ...context.public, priority: "high" as const }),
          }),
        },
      },
    },
    closed: { type: "final" },
  },
});

export const allowRead: AllowRead<Context> = ({ authContext }) => authContext.sub !== undefined;

export const allowWrite: AllowWrite<Context> = ({ authContext }) => authContext.sub !== undefined;
