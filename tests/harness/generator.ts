// Random machines: one description, rendered for either major version of XState.
//
// What they do always comes to an end, so that a run can be compared: what a machine does on its own
// (eventless transitions, onDone of states and services) uses up fuel that only an outside event
// refills, and transitions for raised events and messages raise nothing themselves.

import type { Any } from "./engine.ts";

export type Random = () => number;

/** mulberry32: small, and good enough to pick from lists. */
export function randomOf(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const EVENTS = ["E0", "E1", "E2", "E3", "E4", "E5"];
const FUEL = 6;
const ROOM = 14; // how many nodes a machine may have, about

export type ActionDescription =
  | { kind: "count"; key: string }
  | { kind: "trace" | "custom"; text: string }
  | { kind: "raise" | "self"; event: string }
  | { kind: "later"; event: string; delay: number }
  | { kind: "cancel"; id: string }
  | { kind: "spawn"; id: string; store: boolean }
  | { kind: "stop"; id: string }
  | { kind: "tell"; id: string }
  | { kind: "refuel" | "burn" };

export type GuardDescription = { kind: "mod"; key: string; of: number; is: number } | {
  kind: "in";
  id: string;
};

export interface TransitionDescription {
  guard?: GuardDescription;
  /** Only while there is fuel, and burns some. */
  burns: boolean;
  /** An id of a node. */
  target?: string;
  actions: ActionDescription[];
  external: boolean;
}

export interface InvokeDescription {
  id: string;
  kind: "promise" | "rejection" | "callback" | "machine" | "waitingMachine" | "talkingMachine";
  onDone: TransitionDescription;
}

export interface NodeDescription {
  id: string;
  type: "atomic" | "compound" | "parallel" | "final" | "history";
  children: NodeDescription[];
  parent?: NodeDescription;
  initial?: string;
  history?: "shallow" | "deep";
  tags: string[];
  entry: ActionDescription[];
  exit: ActionDescription[];
  on: Record<string, TransitionDescription[]>;
  always: TransitionDescription[];
  after: Record<number, TransitionDescription[]>;
  invoke: InvokeDescription[];
  onDone?: TransitionDescription;
  output?: number;
}

export class Generator {
  readonly #random: Random;
  #nodes: NodeDescription[] = [];
  #count = 0;
  #events = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  machine(): NodeDescription {
    const root = this.#node(0, undefined);
    for (const node of this.#nodes) {
      this.#furnish(node);
    }
    return root;
  }

  #chance(p: number): boolean {
    return this.#random() < p;
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!;
  }

  #upTo(n: number): number {
    return Math.floor(this.#random() * (n + 1));
  }

  #node(depth: number, parent: NodeDescription | undefined): NodeDescription {
    const node: NodeDescription = {
      id: `n${this.#count++}`,
      type: "atomic",
      children: [],
      tags: [],
      entry: [],
      exit: [],
      on: {},
      always: [],
      after: {},
      invoke: [],
    };
    if (parent !== undefined) {
      node.parent = parent;
    }
    this.#nodes.push(node);
    const roomy = this.#count < ROOM;
    if (depth === 0) {
      node.type = this.#chance(0.3) ? "parallel" : "compound";
    } else if (roomy && depth < 4 && this.#chance(0.45)) {
      node.type = this.#chance(0.35) ? "parallel" : "compound";
    } else if (parent?.type === "compound" && parent.children.length > 0 && this.#chance(0.15)) {
      node.type = "final";
    }
    if (node.type === "compound" || node.type === "parallel") {
      this.#fill(node, depth);
    }
    return node;
  }

  #fill(node: NodeDescription, depth: number): void {
    const children = node.type === "parallel" ? 2 + this.#upTo(1) : 2 + this.#upTo(2);
    for (let i = 0; i < children; i++) {
      node.children.push(this.#node(depth + 1, node));
    }
    if (node.type === "compound") {
      node.initial = node.children[0]!.id;
    }
    if (depth > 0 && this.#chance(0.45)) {
      const history: NodeDescription = {
        ...this.#node(9, node),
        type: "history",
        history: this.#chance(0.5) ? "deep" : "shallow",
      };
      this.#nodes[this.#nodes.length - 1] = history;
      node.children.push(history);
    }
  }

  #furnish(node: NodeDescription): void {
    if (node.type === "history") {
      return;
    }
    if (this.#chance(0.3)) {
      node.tags = [this.#pick(["red", "green"]), ...(this.#chance(0.3) ? ["blue"] : [])];
    }
    node.entry = this.#plainActions(`+${node.id}`, 0.6);
    if (node.type === "final") {
      if (this.#chance(0.5)) {
        node.output = this.#upTo(9);
      }
      return;
    }
    node.exit = this.#plainActions(`-${node.id}`, 0.6);
    for (const event of EVENTS) {
      if (this.#chance(node.type === "atomic" ? 0.45 : 0.2)) {
        node.on[event] = this.#transitions(node, true);
      }
    }
    if (this.#chance(0.2)) {
      node.always = [burning(this.#transition(node, false))];
    }
    if (this.#chance(0.2)) {
      node.after[100 * (1 + this.#upTo(4)) + this.#upTo(9)] = this.#transitions(node, false);
    }
    if (node.type === "atomic" && node.parent !== undefined && this.#chance(0.3)) {
      for (let i = 0; i <= this.#upTo(1); i++) {
        node.invoke.push(this.#invoke(node, i));
      }
    }
    if (node.type !== "atomic" && node.parent !== undefined && this.#chance(0.5)) {
      node.onDone = burning(this.#transition(node, false));
    }
  }

  #transitions(node: NodeDescription, outside: boolean): TransitionDescription[] {
    const list = [this.#transition(node, outside)];
    if (this.#chance(0.25)) {
      list.unshift({ ...this.#transition(node, outside), guard: this.#guard() });
    }
    return list;
  }

  #transition(node: NodeDescription, outside: boolean): TransitionDescription {
    const actions: ActionDescription[] = outside ? [{ kind: "refuel" }] : [];
    actions.push(...this.#plainActions(`>${node.id}`, 0.7));
    if (outside) {
      actions.push(...this.#sendingActions(node));
    }
    const transition: TransitionDescription = {
      actions,
      burns: false,
      external: this.#chance(0.3),
    };
    if (this.#chance(0.8)) {
      transition.target = this.#target(node);
    }
    if (this.#chance(0.3)) {
      transition.guard = this.#guard();
    }
    return transition;
  }

  /** Mostly near by, but never the root: XState 4 and 5 differ in what that means. */
  #target(node: NodeDescription): string {
    const near = node.parent?.children.filter(({ id }) => id !== node.id) ?? [];
    const candidates = this.#chance(0.6) && near.length > 0 ? near : this.#nodes.slice(1);
    return this.#pick(candidates).id;
  }

  #guard(): GuardDescription {
    return this.#chance(0.75)
      ? { kind: "mod", key: this.#pick(["a", "b"]), of: 2 + this.#upTo(1), is: this.#upTo(1) }
      : {
        kind: "in",
        id: this.#pick(this.#nodes.slice(1).filter(({ type }) => type !== "history")).id,
      };
  }

  #plainActions(text: string, chance: number): ActionDescription[] {
    const actions: ActionDescription[] = [];
    if (this.#chance(chance)) {
      actions.push({ kind: "trace", text });
    }
    if (this.#chance(0.3)) {
      actions.push({ kind: "count", key: this.#pick(["a", "b"]) });
    }
    if (this.#chance(0.25)) {
      actions.push({ kind: "custom", text });
    }
    return actions;
  }

  #sendingActions(node: NodeDescription): ActionDescription[] {
    switch (this.#upTo(11)) {
      case 0:
        return [{ kind: "raise", event: this.#answered() }];
      case 1:
        return [{ kind: "self", event: this.#answered() }];
      case 2:
      case 3: {
        const event = this.#answered();
        return [{ kind: "cancel", id: event }, {
          kind: "later",
          event,
          delay: 50 * (1 + this.#upTo(9)),
        }];
      }
      case 4:
        return [{ kind: "cancel", id: `M${this.#upTo(this.#events)}` }];
      case 5:
        return [{ kind: "spawn", id: `sp-${node.id}`, store: this.#chance(0.5) }];
      case 6:
        return [{ kind: "stop", id: `sp-${this.#pick(this.#nodes).id}` }];
      default:
        return [];
    }
  }

  /** An event of its own that some node answers, without sending anything. */
  #answered(): string {
    const event = `M${++this.#events}`;
    const node = this.#pick(
      this.#nodes.filter(({ type }) => type !== "history" && type !== "final"),
    );
    node.on[event] = this.#transitions(node, false);
    return event;
  }

  #invoke(node: NodeDescription, index: number): InvokeDescription {
    const kind = this.#pick(
      ["promise", "rejection", "callback", "machine", "waitingMachine", "talkingMachine"] as const,
    );
    const id = `svc-${node.id}-${index}`;
    // Must leave the state, or the service would never stop.
    const siblings = node.parent!.children.filter(({ type, id }) =>
      type !== "history" && id !== node.id
    );
    const leaves = node.parent!.type === "compound" && (kind === "callback" || this.#chance(0.7));
    let onDone: TransitionDescription = {
      actions: this.#plainActions(`!${id}`, 0.8),
      burns: false,
      external: true,
    };
    if (kind !== "rejection") { // an error that is not handled would end a machine of XState 5
      onDone = burning(onDone);
      if (leaves && siblings.length > 0) {
        onDone.target = this.#pick(siblings).id;
      }
    }
    const ends = kind !== "callback" || onDone.target !== undefined;
    if (kind === "waitingMachine" && ends) {
      node.entry.push({ kind: "tell", id });
    }
    return { id, kind: ends ? kind : "promise", onDone };
  }
}

function burning(transition: TransitionDescription): TransitionDescription {
  return { ...transition, burns: true, actions: [{ kind: "burn" }, ...transition.actions] };
}

/** The initial context of every machine. */
export function initialContext(): Any {
  return { a: 0, b: 1, fuel: FUEL, trace: [], ref: null };
}

export const REFUELLED = FUEL;
