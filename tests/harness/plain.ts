// A machine run by XState alone, in memory, with a clock that stands still until it is told.

import { interpret } from "npm:xstate";
import { createActor } from "npm:xstate@5";
import type { Any } from "./engine.ts";
import { settleOne } from "./promises.ts";

export class VirtualClock {
  now = 0;
  #timeouts: { id: number; due: number; run: () => void }[] = [];
  #ids = 0;

  setTimeout = (run: () => void, delay: number): number => {
    const id = ++this.#ids;
    this.#timeouts.push({ id, due: this.now + delay, run });
    return id;
  };

  clearTimeout = (id: number): void => {
    this.#timeouts = this.#timeouts.filter((timeout) => timeout.id !== id);
  };

  get pending(): number[] {
    return this.#timeouts.map(({ due }) => due).toSorted((a, b) => a - b);
  }

  fireNext(): boolean {
    const next = this.#timeouts.toSorted((a, b) => a.due - b.due)[0];
    if (next === undefined) {
      return false;
    }
    this.clearTimeout(next.id);
    this.now = next.due;
    next.run();
    return true;
  }
}

export interface Plain {
  readonly clock: VirtualClock;
  readonly value: Any;
  readonly context: Any;
  readonly tags: string[];
  readonly done: boolean;
  readonly output: Any;
  /** Services are still running: this machine does not settle. */
  readonly busy: boolean;
  /** XState itself has been in a state that contradicts itself, or goes round for ever. */
  readonly broken: boolean;
  send(event: Any): void;
}

const STEPS_MAX = 1000;

/** XState 4 can go round for ever once its configuration contradicts its value. */
function limited(machine: Any): Any {
  const { transition } = machine;
  machine.steps = 0;
  machine.transition = (state: Any, event: Any, context: Any, exec: Any) => {
    if (++machine.steps > STEPS_MAX) {
      return machine.resolveState({ ...state, actions: [] }); // which starts nothing any more
    }
    return transition(state, event, context, exec);
  };
  return machine;
}

/** Until nothing more happens by itself. */
export async function settle(): Promise<void> {
  while (await settleOne());
}

export function plain5(machine: Any): Plain {
  const clock = new VirtualClock();
  const actor: Any = createActor(machine, { clock } as Any);
  let broken = false;
  actor.subscribe((snapshot: Any) => {
    broken ||= contradicts(snapshot._nodes);
  });
  actor.start();
  return {
    clock,
    get value() {
      return actor.getSnapshot().value;
    },
    get context() {
      return actor.getSnapshot().context;
    },
    get tags() {
      return [...actor.getSnapshot().tags];
    },
    get done() {
      return actor.getSnapshot().status === "done";
    },
    get output() {
      return actor.getSnapshot().output;
    },
    get busy() {
      const { status, children } = actor.getSnapshot();
      return status === "active" &&
        Object.values(children).some((child: Any) => child?.getSnapshot().status === "active");
    },
    get broken() {
      return broken;
    },
    send: (event) => actor.send(event),
  };
}

export function plain4(original: Any): Plain {
  const clock = new VirtualClock();
  let output: Any;
  let broken = false;
  const machine = limited(original.withContext(original.context));
  const service: Any = interpret(machine, { clock } as Any);
  service.onDone((event: Any) => {
    output = event.data;
  });
  service.onTransition((state: Any) => {
    broken ||= contradicts(state.configuration);
  });
  service.start();
  return {
    clock,
    get value() {
      return service.getSnapshot().value;
    },
    get context() {
      return service.getSnapshot().context;
    },
    get tags() {
      return [...service.getSnapshot().tags];
    },
    get done() {
      return service.getSnapshot().done;
    },
    get output() {
      return output;
    },
    get busy() {
      return service.children.size > 0;
    },
    get broken() {
      return broken || machine.steps > STEPS_MAX;
    },
    send: (event) => service.send(event),
  };
}

/** Every active node has its parent, and the right number of its children, active with it. */
function contradicts(nodes: Any[]): boolean {
  const active = new Set(nodes);
  return nodes.some((node) => {
    const children = Object.values<Any>(node.states).filter(({ type }) => type !== "history");
    const count = children.filter((child) => active.has(child)).length;
    const isOrphan = node.parent !== undefined && !active.has(node.parent);
    return isOrphan || count !== (node.type === "compound" ? 1 : children.length);
  });
}
