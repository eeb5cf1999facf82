// A description as a machine of XState 4.

import { actions as xstate, assign, createMachine, send, sendParent, spawn } from "npm:xstate";
import type { Any } from "./engine.ts";
import {
  type ActionDescription,
  type GuardDescription,
  initialContext,
  type InvokeDescription,
  type NodeDescription,
  REFUELLED,
  type TransitionDescription,
} from "./generator.ts";
import { turnOf } from "./promises.ts";

/** What custom actions did, for whichever run is going on. */
export const customActions4: string[] = [];

export function render4(root: NodeDescription, predictable: boolean): Any {
  return createMachine({
    ...node(root, predictable),
    predictableActionArguments: predictable,
    context: initialContext(),
  });
}

function node(description: NodeDescription, predictable: boolean): Any {
  const {
    id,
    type,
    initial,
    history,
    tags,
    entry,
    exit,
    on,
    always,
    after,
    invoke,
    onDone,
    output,
  } = description;
  if (type === "history") {
    return { id, type, history };
  }
  const config: Any = { id, tags, entry: actions(entry), exit: actions(exit), on: {} };
  if (type === "final") {
    return {
      ...config,
      type,
      data: output === undefined ? undefined : { output },
      exit: undefined,
      on: undefined,
    };
  }
  if (type === "parallel") {
    config.type = type;
  }
  if (initial !== undefined) {
    config.initial = initial;
  }
  if (description.children.length > 0) {
    config.states = Object.fromEntries(
      description.children.map((child) => [child.id, node(child, predictable)]),
    );
  }
  for (const [event, transitions] of Object.entries(on)) {
    config.on[event] = transitions.map(transition);
  }
  config.always = always.map(transition);
  config.after = Object.fromEntries(
    Object.entries(after).map(([delay, list]) => [delay, list.map(transition)]),
  );
  config.invoke = invoke.map((one) => service(one, config.on, predictable));
  if (onDone !== undefined) {
    config.onDone = transition(onDone);
  }
  return config;
}

function transition({ guard, burns, target, actions: list }: TransitionDescription): Any {
  return {
    ...(guard?.kind === "in" ? { in: `#${guard.id}` } : {}),
    ...(burns || guard?.kind === "mod" ? { cond: condition(guard, burns) } : {}),
    ...(target === undefined ? {} : { target: `#${target}` }),
    actions: actions(list),
  };
}

function condition(guard: GuardDescription | undefined, burns: boolean): Any {
  return (context: Any) =>
    (!burns || context.fuel > 0) &&
    (guard?.kind !== "mod" || context[guard.key] % guard.of === guard.is);
}

function actions(list: ActionDescription[]): Any[] {
  return list.map(action);
}

function action(description: ActionDescription): Any {
  switch (description.kind) {
    case "count":
      return assign({ [description.key]: (context: Any) => context[description.key] + 1 });
    case "trace":
      return assign({ trace: ({ trace }: Any) => [...trace.slice(-11), description.text] });
    case "custom":
      return () => {
        customActions4.push(description.text);
      };
    case "raise":
      return xstate.raise({ type: description.event });
    case "self":
      return send({ type: description.event });
    case "later":
      return send({ type: description.event }, { delay: description.delay, id: description.event });
    case "cancel":
      return xstate.cancel(description.id);
    case "spawn":
      return assign((context: Any) => {
        const ref = spawn(turnOf(description.id), description.id);
        return description.store ? { ref } : { a: context.a };
      });
    case "stop":
      return xstate.stop(description.id);
    case "tell": // XState 4 throws if the service is gone already, and loses the other actions
      return assign({});
    case "refuel":
      return assign({ fuel: () => REFUELLED });
    case "burn":
      return assign({ fuel: ({ fuel }: Any) => fuel - 1 });
  }
}

function service(
  { id, kind, onDone }: InvokeDescription,
  on: Any,
  predictableActionArguments: boolean,
): Any {
  const then = transition(onDone);
  const machine = (config: Any) => createMachine({ predictableActionArguments, ...config });
  switch (kind) {
    case "promise":
      return { id, src: () => turnOf(id).then(() => 7), onDone: then };
    case "rejection":
      return {
        id,
        src: () => turnOf(id).then(() => Promise.reject(new Error("no"))),
        onError: then,
      };
    case "callback":
      on[`CB-${id}`] = then;
      return {
        id,
        src: () => (sendBack: Any) => {
          sendBack({ type: `CB-${id}` });
        },
      };
    case "machine":
    case "waitingMachine":
      return {
        id,
        src: machine({ initial: "x", states: { x: { always: "y" }, y: { type: "final" } } }),
        onDone: then,
      };
    case "talkingMachine":
      on[`TALK-${id}`] = { actions: assign({ b: ({ b }: Any) => b + 1 }) };
      return {
        id,
        src: machine({
          initial: "x",
          states: {
            x: { entry: sendParent({ type: `TALK-${id}` }), always: "y" },
            y: { type: "final", entry: sendParent({ type: `TALK-${id}` }) },
          },
        }),
        onDone: then,
      };
  }
}
