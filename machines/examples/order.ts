/**
 * An order, from the basket to the doorstep: a payment service that may fail or get lost, a
 * deadline for paying, and a customer who may not ship their own order.
 *
 *   create   {"slug": "order-1001", "context": {"customer": "ada", "public": {"total": 4200}}}
 *                                                                          as staff
 *   send     {"event": {"type": "pay", "card": "4242424242424242"}}        as ada
 *   send     {"event": {"type": "ship", "trackingNumber": "X123"}}         as staff
 */
import { assign, fromPromise, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Context = {
  customer: string;
  attempts: number;
  public: {
    total: number; // cents
    receipt?: string;
    problem?: string;
    trackingNumber?: string;
  };
};

type Event =
  | { type: "pay"; card: string }
  | { type: "cancel" }
  | { type: "ship"; trackingNumber: string };

type AuthContext = { sub?: string; role?: "staff" };

type Charge = { card: string; cents: number; attempt: number };

const DAY = 24 * 60 * 60 * 1000;

/**
 * Stands for a request to a payment provider: `await fetch("https://…", {method: "POST", …})`.
 *
 * It starts when the transition into `charging` is durable, and it runs at most once: if the
 * server stops meanwhile, the machine gets the same error event as for a refused card, and can't
 * know whether the provider was reached. So send the provider a key for each attempt and let it
 * refuse duplicates; here it would be the order's name and the attempt.
 */
const chargeCard = fromPromise<string, Charge>(async ({ input }) => {
  if (input.card.endsWith("0002")) {
    throw new Error("the card was declined");
  }
  return `receipt-${input.attempt}-${input.cents}`;
});

export default setup({
  types: {
    context: {} as Context,
    events: {} as Event,
  },
  actors: { chargeCard },
  actions: {
    startAttempt: assign({ attempts: ({ context }) => context.attempts + 1 }),
    keepReceipt: assign({
      public: ({ context }, { receipt }: { receipt: string }) => ({
        total: context.public.total,
        receipt,
      }),
    }),
    explain: assign({
      public: ({ context }, { problem }: { problem: string }) => ({ ...context.public, problem }),
    }),
    keepTrackingNumber: assign({
      public: ({ context }, { trackingNumber }: { trackingNumber: string }) => ({
        ...context.public,
        trackingNumber,
      }),
    }),
  },
}).createMachine({
  id: "order",
  context: { customer: "", attempts: 0, public: { total: 0 } },
  initial: "awaitingPayment",
  states: {
    awaitingPayment: {
      // Durable: it fires in three days, however often the server is restarted until then.
      after: {
        [3 * DAY]: {
          target: "cancelled",
          actions: { type: "explain", params: { problem: "not paid in time" } },
        },
      },
      on: { pay: { target: "charging", actions: "startAttempt" }, cancel: "cancelled" },
    },
    charging: {
      tags: "busy",
      // The sender of `pay` gets its answer when this service has ended: the next state.
      invoke: {
        src: "chargeCard",
        input: ({ context, event }) => ({
          card: event.type === "pay" ? event.card : "",
          cents: context.public.total,
          attempt: context.attempts,
        }),
        onDone: {
          target: "paid",
          actions: { type: "keepReceipt", params: ({ event }) => ({ receipt: event.output }) },
        },
        onError: {
          target: "awaitingPayment",
          actions: {
            type: "explain",
            params: ({ event }) => ({ problem: (event.error as Error).message }),
          },
        },
      },
    },
    paid: {
      on: {
        ship: {
          target: "shipped",
          actions: {
            type: "keepTrackingNumber",
            params: ({ event }) => ({ trackingNumber: event.trackingNumber }),
          },
        },
      },
    },
    shipped: { type: "final" },
    cancelled: { type: "final" },
  },
});

export const allowRead: AllowRead<Context, AuthContext> = ({ context, authContext }) =>
  authContext.role === "staff" || context.customer === authContext.sub;

export const allowWrite: AllowWrite<Context, AuthContext> = (request) => {
  const { context, authContext } = request;
  // The shop creates orders, since it knows the prices, and ships them.
  if (request.type === "initialization" || request.event.type === "ship") {
    return authContext.role === "staff";
  }
  // Nobody pays or cancels in another customer's name.
  return context.customer === authContext.sub;
};
