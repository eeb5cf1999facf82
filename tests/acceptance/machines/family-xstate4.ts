/** A parent with persistent children, and both ends of every way of sending. XState 4. */
import { actions, assign, createMachine, send, sendParent } from "npm:xstate";
import { persistentInvocableSource, sendTo, spawnPersistentInstance } from "@statebacked/machine";

const MACHINE = "family-xstate4";

const ref = (name: string, machine = MACHINE) => ({
  type: "statebacked.instance" as const,
  id: name,
  machineName: machine,
  machineInstanceName: name,
});

const hear = assign((context: any, event: any) => ({
  public: {
    ...context.public,
    heard: [...context.public.heard, event.n ?? event.data?.name ?? event.data ?? event.type],
  },
}));

/** Counts, and says so if one has come out of turn. */
const countPong = assign((context: any, event: any) => ({
  public: {
    ...context.public,
    pongs: (context.public.pongs ?? 0) + 1,
    last: event.n,
    outOfTurn: (context.public.outOfTurn ?? 0) + (event.n - (context.public.last ?? event.n - 2) === 2 ? 0 : 1),
  },
}));

export default createMachine({
  predictableActionArguments: true,
  context: { kid: null, public: { heard: [] } },
  initial: "alone",
  on: {
    note: { actions: hear },
    tell: {
      actions: sendTo(
        (_: any, event: any) => ref(event.to, event.machine),
        (_: any, event: any) => ({ type: "note", n: event.n }),
      ),
    },
    tellLater: {
      actions: sendTo(
        (_: any, event: any) => ref(event.to),
        (_: any, event: any) => ({ type: "note", n: event.n }),
        { delay: (_: any, event: any) => event.delay, id: "later" },
      ),
    },
    takeBack: { actions: actions.cancel("later") },
    up: { actions: sendParent((_: any, event: any) => ({ type: "note", n: event.n })) },
    pong: {
      actions: [
        countPong,
        actions.choose([
          {
            cond: (_: any, event: any) => event.n < event.until,
            actions: sendTo(
              (_: any, event: any) => ref(event.from),
              (_: any, event: any) => ({
                ...event,
                n: event.n + 1,
                from: event.to,
                to: event.from,
              }),
            ),
          },
        ]),
      ],
    },
    spawn: {
      actions: [
        assign({
          kid: (_: any, event: any) =>
            spawnPersistentInstance(
              { machineName: MACHINE, machineInstanceName: event.as },
              { name: "kid", context: { public: { heard: [], colour: event.colour }, guarded: event.guarded } },
            ),
        }),
        send((_: any, event: any) => ({ type: "note", n: `hello ${event.as}` }), { to: "kid" }),
      ],
    },
    tellKid: { actions: send((_: any, event: any) => ({ type: "note", n: event.n }), { to: "kid" }) },
    "done.invoke.kid": { actions: hear },
    "error.platform.kid": { actions: hear },
    finish: ".ended",
  },
  states: {
    alone: { on: { raise: "raising" } },
    raising: {
      invoke: {
        id: "child",
        src: persistentInvocableSource({ machineName: MACHINE }),
        data: { public: { heard: [], colour: "blue" } },
        onDone: { target: "proud", actions: hear },
        onError: { target: "sad", actions: hear },
      },
      on: {
        finishChild: { actions: send({ type: "finish" }, { to: "child" }) },
        leave: "alone",
      },
    },
    proud: {},
    sad: {},
    ended: { type: "final", data: (context: any) => context.public.heard.length },
  },
} as any);

export const allowRead = () => true;
export const allowWrite = ({ type, context, authContext }: any) =>
  type === "initialization"
    ? context.guarded !== true
    : context.guarded === undefined ||
      authContext.stateBackedSender?.machineInstanceName === context.guarded;
