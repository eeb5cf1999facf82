// A description as a machine of XState 5.

import {
  and,
  assign,
  cancel,
  createMachine,
  fromCallback,
  fromPromise,
  raise,
  sendParent,
  sendTo,
  stateIn,
  stopChild,
} from "npm:xstate@5";
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
export const customActions5: string[] = [];

export function render5(root: NodeDescription): Any {
  return createMachine({
    ...node(root),
    context: initialContext(),
    output: ({ context }: Any) => ({ a: context.a }),
  });
}

function node(description: NodeDescription): Any {
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
    return { ...config, type, output, exit: undefined, on: undefined };
  }
  if (type === "parallel") {
    config.type = type;
  }
  if (initial !== undefined) {
    config.initial = initial;
  }
  if (description.children.length > 0) {
    config.states = Object.fromEntries(
      description.children.map((child) => [child.id, node(child)]),
    );
  }
  for (const [event, transitions] of Object.entries(on)) {
    config.on[event] = transitions.map(transition);
  }
  config.always = always.map(transition);
  config.after = Object.fromEntries(
    Object.entries(after).map(([delay, list]) => [delay, list.map(transition)]),
  );
  config.invoke = invoke.map((one) => service(one, config.on));
  if (onDone !== undefined) {
    config.onDone = transition(onDone);
  }
  return config;
}

function transition({ guard, burns, target, actions: list, external }: TransitionDescription): Any {
  return {
    ...(guard === undefined && !burns ? {} : { guard: burns ? fuelled(guard) : guardOf(guard!) }),
    ...(target === undefined ? {} : { target: `#${target}` }),
    actions: actions(list),
    reenter: external,
  };
}

function guardOf(guard: GuardDescription): Any {
  return guard.kind === "in"
    ? stateIn(`#${guard.id}`)
    : ({ context }: Any) => context[guard.key] % guard.of === guard.is;
}

function fuelled(guard: GuardDescription | undefined): Any {
  const hasFuel = ({ context }: Any) => context.fuel > 0;
  return guard === undefined ? hasFuel : and([hasFuel, guardOf(guard)]);
}

function actions(list: ActionDescription[]): Any[] {
  return list.map(action);
}

function action(description: ActionDescription): Any {
  switch (description.kind) {
    case "count":
      return assign({ [description.key]: ({ context }: Any) => context[description.key] + 1 });
    case "trace":
      return assign({
        trace: ({ context }: Any) => [...context.trace.slice(-11), description.text],
      });
    case "custom":
      return () => customActions5.push(description.text);
    case "raise":
      return raise({ type: description.event });
    case "self":
      return sendTo(({ self }: Any) => self, { type: description.event });
    case "later":
      return raise({ type: description.event }, {
        delay: description.delay,
        id: description.event,
      });
    case "cancel":
      return cancel(description.id);
    case "spawn":
      return assign(({ spawn, context }: Any) => {
        const ref = spawn(fromPromise(() => turnOf(description.id)), { id: description.id });
        return description.store ? { ref } : { a: context.a };
      });
    case "stop":
      return stopChild(description.id);
    case "tell":
      return sendTo(description.id, { type: "GO" });
    case "refuel":
      return assign({ fuel: REFUELLED });
    case "burn":
      return assign({ fuel: ({ context }: Any) => context.fuel - 1 });
  }
}

function service({ id, kind, onDone }: InvokeDescription, on: Any): Any {
  const then = transition(onDone);
  switch (kind) {
    case "promise":
      return { id, src: fromPromise(() => turnOf(id).then(() => 7)), onDone: then };
    case "rejection":
      return {
        id,
        src: fromPromise(() => turnOf(id).then(() => Promise.reject(new Error("no")))),
        onError: then,
      };
    case "callback":
      on[`CB-${id}`] = then;
      return {
        id,
        src: fromCallback(({ sendBack }: Any) => {
          sendBack({ type: `CB-${id}` });
        }),
      };
    case "machine":
      return {
        id,
        src: createMachine({ initial: "x", states: { x: { always: "y" }, y: { type: "final" } } }),
        onDone: then,
      };
    case "waitingMachine":
      return {
        id,
        src: createMachine({
          initial: "x",
          states: { x: { on: { GO: "y" } }, y: { type: "final" } },
        }),
        onDone: then,
      };
    case "talkingMachine":
      on[`TALK-${id}`] = { actions: assign({ b: ({ context }: Any) => context.b + 1 }) };
      return {
        id,
        src: createMachine({
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
