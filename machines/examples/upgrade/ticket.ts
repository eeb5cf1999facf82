/**
 * A support ticket, as it was first deployed. docs/upgrades.md upgrades its instances to
 * ticket-v2.ts while they run.
 *
 *   create   {"slug": "ticket-1", "context": {"subject": "It does not start"}}
 *   send     {"event": "answer"}   {"event": "reply"}
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

export type Context = { subject: string; public: { answers: number } };

type Event = { type: "answer" } | { type: "reply" };

export default setup({
  types: { context: {} as Context, events: {} as Event },
}).createMachine({
  id: "ticket",
  context: { subject: "", public: { answers: 0 } },
  initial: "open",
  states: {
    open: {
      on: {
        answer: {
          target: "waiting",
          actions: assign({
            public: ({ context }) => ({ answers: context.public.answers + 1 }),
          }),
        },
      },
    },
    waiting: {
      // Nobody answers for ten minutes: the case is closed. (A real one would wait for days.)
      after: { 600_000: "closed" },
      on: { reply: "open" },
    },
    closed: { type: "final" },
  },
});

export const allowRead: AllowRead<Context> = ({ authContext }) => authContext.sub !== undefined;

export const allowWrite: AllowWrite<Context> = ({ authContext }) => authContext.sub !== undefined;
