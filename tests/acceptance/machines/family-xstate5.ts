/** A parent with persistent children, and both ends of every way of sending. XState 5. */
import { assign, cancel, createMachine, enqueueActions, sendParent, sendTo } from "xstate";
import { persistentInvocableSource, spawnPersistentInstance } from "@statebacked/machine";

type Told = { type: string; [name: string]: unknown };

const ref = (name: string, machine: string) => ({
  type: "statebacked.instance" as const,
  id: name,
  machineName: machine,
  machineInstanceName: name,
});

const hear = assign(({ context, event }: any) => ({
  public: {
    ...context.public,
    heard: [...context.public.heard, event.n ?? event.error?.name ?? event.output ?? event.type],
  },
}));

/** Counts, and says so if one has come out of turn. */
const countPong = assign(({ context, event }: any) => ({
  public: {
    ...context.public,
    pongs: (context.public.pongs ?? 0) + 1,
    last: event.n,
    outOfTurn: (context.public.outOfTurn ?? 0) + (event.n - (context.public.last ?? event.n - 2) === 2 ? 0 : 1),
  },
}));

export default createMachine({
  context: ({ input }: any) => ({
    machine: "family-xstate5",
    kid: null,
    guarded: input?.guarded,
    public: { heard: [], colour: input?.colour },
  }),
  initial: "alone",
  on: {
    note: { actions: hear as any },
    tell: {
      actions: sendTo(
        (({ context, event }: any) => ref(event.to, event.machine ?? context.machine)) as any,
        (({ event }: any) => ({ type: "note", n: event.n })) as any,
      ),
    },
    tellLater: {
      actions: sendTo(
        (({ context, event }: any) => ref(event.to, context.machine)) as any,
        (({ event }: any) => ({ type: "note", n: event.n })) as any,
        { delay: ({ event }: any) => event.delay, id: "later" },
      ),
    },
    takeBack: { actions: cancel("later") },
    up: { actions: sendParent(({ event }: any) => ({ type: "note", n: event.n })) },
    pong: {
      actions: enqueueActions(({ context, event, enqueue }: any) => {
        enqueue(countPong as any);
        if (event.n < event.until) {
          const to = ref(event.from, context.machine) as any;
          enqueue.sendTo(to, { ...event, n: event.n + 1, from: event.to, to: event.from } as any);
        }
      }),
    },
    spawn: {
      actions: [
        assign({
          kid: (({ context, event }: any) =>
            spawnPersistentInstance(
              { machineName: context.machine, machineInstanceName: event.as },
              { name: "kid", context: { colour: event.colour, guarded: event.guarded } },
            )) as any,
        }),
        sendTo("kid", ({ event }: any) => ({ type: "note", n: `hello ${event.as}` })),
      ],
    },
    tellKid: { actions: sendTo("kid", (({ event }: any) => ({ type: "note", n: event.n })) as any) },
    "xstate.done.actor.kid": { actions: hear as any },
    "xstate.error.actor.kid": { actions: hear as any },
    finish: ".ended",
  },
  states: {
    alone: { on: { raise: "raising" } },
    raising: {
      invoke: {
        id: "child",
        src: persistentInvocableSource({ machineName: "family-xstate5" }) as any,
        input: { colour: "blue" },
        onDone: { target: "proud", actions: hear as any },
        onError: { target: "sad", actions: hear as any },
      },
      on: {
        finishChild: { actions: sendTo("child", { type: "finish" }) },
        leave: "alone",
      },
    },
    proud: {},
    sad: {},
    ended: { type: "final" },
  },
  output: ({ context }: any) => context.public.heard.length,
} as any);

export const allowRead = () => true;
export const allowWrite = ({ type, context, authContext }: any) =>
  type === "initialization"
    ? context.guarded !== true
    : context.guarded === undefined ||
      authContext.stateBackedSender?.machineInstanceName === context.guarded;
