/** Everything that the workloads of a fault run ask of one instance, except messages. XState 5.
 *
 * Each event carries `n`, which no other event has: the checker finds it again in the history. Two
 * versions differ in what they call the state in which no service runs.
 */
import { assign, fromPromise, raise, setup } from "xstate";

type Public = {
  value: string;
  ids: string[];
  closed: boolean;
  paid: number;
  lost: number;
  turnedAway: number;
};
type Context = { public: Public };
type Sent = { n: string; url?: string };
type Climb = { type: "climb" | "rung"; n: string; ladder: string; k: number; rungs: number };
type Event =
  | ({ type: "write" | "append" | "enter" | "open" | "close" | "pay" | "boom" | "forbid" } & Sent)
  | (Climb & { delayMs: number; url: string });

const call = (url: string) => fetch(url, { method: "POST" });

const machine = setup({
  types: { context: {} as Context, events: {} as Event },
  actors: {
    pay: fromPromise(async ({ input }: { input: string }) => {
      const { status } = await call(input);
      if (status !== 200) throw new Error(`the outside world said ${status}`);
    }),
  },
  actions: {
    write: assign(({ context, event }) => ({ public: { ...context.public, value: event.n } })),
    keep: assign(({ context, event }) => ({
      public: { ...context.public, ids: [...context.public.ids, event.n] },
    })),
    count: assign(({ context }, what: "paid" | "lost" | "turnedAway") => ({
      public: { ...context.public, [what]: context.public[what] + 1 },
    })),
    set: assign(({ context }, closed: boolean) => ({ public: { ...context.public, closed } })),
    tell: ({ event }) => {
      if (event.url) void call(event.url).catch(() => {});
    },
    // Each rung has an event of its own that names its ladder and how many rungs follow.
    climb: raise(
      ({ event }) => {
        const { ladder, k, rungs, delayMs, url } = event as Climb & { delayMs: number; url: string };
        const n = `${ladder}.${k + 1}`;
        return { type: "rung", n, ladder, k: k + 1, rungs, delayMs, url: url.replace(/n=[^&]*/, `n=${n}`) } as Event;
      },
      { delay: ({ event }) => (event as { delayMs: number }).delayMs },
    ),
    explode: assign(() => {
      throw new Error("this event always fails");
    }),
  },
  guards: { isNotTheTop: ({ event }) => (event as Climb).k < (event as Climb).rungs },
});

export const subject = (idle: string) => machine.createMachine({
  context: { public: { value: "", ids: [], closed: false, paid: 0, lost: 0, turnedAway: 0 } },
  on: {
    write: { actions: "write" },
    append: { actions: ["keep", "tell"] },
    enter: { actions: "keep" },
    open: { actions: ["keep", { type: "set", params: false }] },
    close: { actions: ["keep", { type: "set", params: true }] },
    climb: { actions: ["keep", "climb"] },
    rung: [
      { guard: "isNotTheTop", actions: ["keep", "tell", "climb"] },
      { actions: ["keep", "tell"] },
    ],
    boom: { actions: "explode" },
    forbid: { actions: "keep" },
  },
  initial: idle,
  states: {
    [idle]: { on: { pay: { target: "paying", actions: "keep" } } },
    paying: {
      on: { pay: { actions: ["keep", { type: "count", params: "turnedAway" }] } },
      invoke: {
        src: "pay",
        input: ({ event }) => (event as Sent).url ?? "",
        onDone: { target: idle, actions: { type: "count", params: "paid" } },
        onError: { target: idle, actions: { type: "count", params: "lost" } },
      },
    },
  },
});

export const allowRead = () => true;

/** Refuses what is forbidden always, and entering while the instance is closed. */
export const allowWrite = ({ event, context }: { event?: Event; context: Context }) =>
  event?.type !== "forbid" && !(event?.type === "enter" && context.public.closed);
