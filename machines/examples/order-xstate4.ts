/**
 * The order again, for XState 4: a payment service that may fail or get lost, a deadline for
 * paying, and a customer who may not ship their own order.
 *
 *   create   {"slug": "order-1001", "context": {"customer": "ada", "public": {"total": 4200}}}
 *                                                                          as staff
 *   send     {"event": {"type": "pay", "card": "4242424242424242"}}        as ada
 *   send     {"event": {"type": "ship", "trackingNumber": "X123"}}         as staff
 */
import { assign, createMachine } from "npm:xstate@4";
import type { DoneInvokeEvent } from "npm:xstate@4";
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

const DAY = 24 * 60 * 60 * 1000;

/**
 * Stands for a request to a payment provider: `await fetch("https://…", {method: "POST", …})`.
 *
 * It starts when the transition into `charging` is durable, and it runs at most once: if the
 * server stops meanwhile, the machine gets the same error event as for a refused card, and can't
 * know whether the provider was reached. So send the provider a key for each attempt and let it
 * refuse duplicates; here it would be the order's name and the attempt.
 */
async function chargeCard(context: Context, event: Event): Promise<string> {
  if (event.type !== "pay" || event.card.endsWith("0002")) {
    throw new Error("the card was declined");
  }
  return `receipt-${context.attempts}-${context.public.total}`;
}

export default createMachine(
  {
    id: "order",
    schema: {
      context: {} as Context,
      events: {} as Event,
      services: {} as { chargeCard: { data: string } },
    },
    predictableActionArguments: true,
    context: { customer: "", attempts: 0, public: { total: 0 } },
    initial: "awaitingPayment",
    states: {
      awaitingPayment: {
        // Durable: it fires in three days, however often the server is restarted until then.
        after: { [3 * DAY]: { target: "cancelled", actions: "explainLateness" } },
        on: { pay: { target: "charging", actions: "startAttempt" }, cancel: "cancelled" },
      },
      charging: {
        tags: "busy",
        // The sender of `pay` gets its answer when this service has ended: the next state.
        invoke: {
          src: "chargeCard",
          onDone: { target: "paid", actions: "keepReceipt" },
          onError: { target: "awaitingPayment", actions: "explainProblem" },
        },
      },
      paid: {
        on: { ship: { target: "shipped", actions: "keepTrackingNumber" } },
      },
      shipped: { type: "final" },
      cancelled: { type: "final" },
    },
  },
  {
    services: { chargeCard },
    actions: {
      startAttempt: assign({ attempts: (context) => context.attempts + 1 }),
      keepReceipt: assign({
        public: (context, event) => ({
          total: context.public.total,
          receipt: (event as DoneInvokeEvent<string>).data,
        }),
      }),
      explainProblem: assign({
        public: (context, event) => ({
          ...context.public,
          problem: (event as DoneInvokeEvent<Error>).data.message,
        }),
      }),
      explainLateness: assign({
        public: (context) => ({ ...context.public, problem: "not paid in time" }),
      }),
      keepTrackingNumber: assign({
        public: (context, event) =>
          event.type === "ship"
            ? { ...context.public, trackingNumber: event.trackingNumber }
            : context.public,
      }),
    },
  },
);

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
