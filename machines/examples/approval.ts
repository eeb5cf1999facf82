/**
 * A request that waits for somebody's decision: it reminds the approver every day, goes up to
 * their manager after the third reminder, and expires after thirty days.
 *
 *   create   {"slug": "trip-to-lisbon", "context": {
 *               "requester": "ada", "approver": "grace", "manager": "mary",
 *               "public": {"title": "Trip to Lisbon"}}}
 *   send     {"event": {"type": "approve", "by": "grace"}}                 as grace
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Context = {
  requester: string;
  approver: string;
  manager: string;
  daysBetweenReminders: number;
  public: {
    title: string;
    reminders: number;
    decidedBy?: string;
    reason?: string;
  };
};

type Event =
  | { type: "approve"; by: string }
  | { type: "reject"; by: string; reason: string }
  | { type: "withdraw"; by: string };

const DAY = 24 * 60 * 60 * 1000;
const REMINDERS = 3;

export default setup({
  types: {
    context: {} as Context,
    events: {} as Event,
    input: {} as Partial<Context> & { public?: Partial<Context["public"]> },
  },
  delays: {
    untilReminder: ({ context }) => context.daysBetweenReminders * DAY,
  },
  guards: {
    isTooLate: ({ context }) => context.public.reminders >= REMINDERS,
  },
  actions: {
    countReminder: assign({
      public: ({ context }) => ({ ...context.public, reminders: context.public.reminders + 1 }),
    }),
    // Stands for an e-mail. Actions run after their transition is durable, never without it.
    write: ({ context }, { to, about }: { to: string; about: string }) => {
      console.log(`To ${to}: ${about} "${context.public.title}"`);
    },
    decide: assign({
      public: ({ context }, { by, reason }: { by: string; reason?: string }) => ({
        ...context.public,
        decidedBy: by,
        reason,
      }),
    }),
  },
}).createMachine({
  id: "approval",
  // What is given at creation is the `input`, as it came: the rest is filled in here.
  context: ({ input }) => ({
    requester: "",
    approver: "",
    manager: "",
    daysBetweenReminders: 1,
    ...input,
    public: { title: "untitled", ...input.public, reminders: 0 },
  }),
  initial: "pending",
  states: {
    pending: {
      initial: "withApprover",
      after: { [30 * DAY]: "expired" },
      on: {
        approve: {
          target: "approved",
          actions: { type: "decide", params: ({ event }) => ({ by: event.by }) },
        },
        reject: {
          target: "rejected",
          actions: {
            type: "decide",
            params: ({ event }) => ({ by: event.by, reason: event.reason }),
          },
        },
        withdraw: "withdrawn",
      },
      states: {
        withApprover: {
          after: {
            untilReminder: [
              { guard: "isTooLate", target: "withManager" },
              {
                // Entering the state again starts the next reminder's timer.
                target: "withApprover",
                reenter: true,
                actions: [
                  "countReminder",
                  {
                    type: "write",
                    params: ({ context }) => ({ to: context.approver, about: "please decide" }),
                  },
                ],
              },
            ],
          },
        },
        withManager: {
          tags: "escalated",
          entry: {
            type: "write",
            params: ({ context }) => ({ to: context.manager, about: "nobody has decided" }),
          },
        },
      },
    },
    approved: { type: "final" },
    rejected: { type: "final" },
    withdrawn: { type: "final" },
    expired: { type: "final" },
  },
});

const people = ({ requester, approver, manager }: Context) => [requester, approver, manager];

export const allowRead: AllowRead<Context> = ({ context, authContext }) =>
  authContext.sub !== undefined && people(context).includes(authContext.sub);

export const allowWrite: AllowWrite<Context> = (request) => {
  const { context } = request;
  const person = request.authContext.sub;
  if (person === undefined) {
    return false;
  }
  if (request.type === "initialization") {
    return context.requester === person;
  }
  // The machine only sees the event. What it says about its sender is checked here.
  if (request.event.by !== person) {
    return false;
  }
  if (request.event.type === "withdraw") {
    return context.requester === person;
  }
  // Nobody decides about their own request.
  return (
    person !== context.requester && (person === context.approver || person === context.manager)
  );
};
