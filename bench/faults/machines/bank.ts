/** Accounts that send money to each other by messages; all are opened with the same. XState 5. */
import { assign, sendTo, setup } from "xstate";

type Context = { public: { balance: number } };
type Event =
  | { type: "transfer"; n: string; to: string; amount: number }
  | { type: "credit"; n: string; from: string; amount: number };

const account = (slug: string) => ({
  type: "statebacked.instance" as const,
  id: slug,
  machineName: "bank",
  machineInstanceName: slug,
});

export default setup({
  types: { context: {} as Context, events: {} as Event },
  actions: {
    add: assign(({ context }, amount: number) => ({
      public: { balance: context.public.balance + amount },
    })),
  },
}).createMachine({
  context: { public: { balance: 1000 } },
  on: {
    transfer: {
      actions: [
        { type: "add", params: ({ event }) => -(event as { amount: number }).amount },
        sendTo(
          (({ event }: { event: { to: string } }) => account(event.to)) as never,
          (({ event }: { event: { n: string; amount: number } }) => ({
            type: "credit",
            n: event.n,
            amount: event.amount,
          })) as never,
        ),
      ],
    },
    credit: {
      actions: { type: "add", params: ({ event }) => (event as { amount: number }).amount },
    },
  },
});

export const allowRead = () => true;

/** Money comes from other accounts only. */
export const allowWrite = (request: {
  event?: { type: string };
  authContext: { stateBackedSender?: { machineName: string } };
}) =>
  request.event?.type !== "credit" || request.authContext.stateBackedSender?.machineName === "bank";
