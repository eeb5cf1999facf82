// What we use of XState 5, private parts included. Objects may come from another copy than ours, so
// nothing here is a class to test for.

export interface Actor {
  id: string;
  sessionId: string;
  systemId?: string;
  logic: unknown;
  src: unknown;
  system: System;
  options: { input?: unknown };
  eventListeners: Map<string, unknown>;
  _parent: Actor | undefined;
  _snapshot: MachineSnapshot;
  _actorScope: Scope;
  _processingStatus: number;
  start(): void;
  _stop(): void;
  getSnapshot(): EndedSnapshot & { children?: Record<string, Actor> };
}

export interface EndedSnapshot {
  status: string;
  output?: unknown;
  error?: unknown;
}

export interface System {
  _register(sessionId: string, actor: Actor): void;
  _unregister(actor: Actor): void;
  _set(systemId: string, actor: Actor): void;
  _relay(source: Actor | undefined, target: unknown, event: XStateEvent): void;
  getAll(): Record<string, Actor>;
  scheduler: { cancelAll(actor: Actor): void };
}

export interface Scope {
  self: Actor;
  system: System;
  defer(effect: () => void): void;
  actionExecutor(action: Action): void;
}

export interface Action {
  type: string;
  info: unknown;
  params: any; // any: each builtin type has its own
  exec: ((info: unknown, params: unknown) => void) | undefined;
}

export interface XStateEvent {
  type: string;
  [key: string]: unknown;
}

export interface StateNode {
  id: string;
  key: string;
  path: string[];
  type: string;
  history: unknown;
  /** Its place in the document. */
  order: number;
  tags: string[];
  parent: StateNode | undefined;
  states: Record<string, StateNode>;
  initial: { target: StateNode[] } | undefined;
  after: { delay: number | string; eventType: string }[];
  output: unknown;
  invoke: { id: string; meta?: unknown }[];
  meta: unknown;
}

export type StateValue = string | { [region: string]: StateValue };

export interface MachineSnapshot extends EndedSnapshot {
  value: StateValue;
  context: any; // any: user data
  tags: Set<string>;
  _nodes: StateNode[];
  children: Record<string, Actor | undefined>;
  historyValue: Record<string, StateNode[]>;
  machine: unknown;
}

export interface StateMachine {
  id: string;
  config: { context?: unknown };
  root: StateNode;
  implementations: { delays: Record<string, unknown> };
  idMap: Map<string, StateNode>;
  getInitialSnapshot(scope: Scope, input: unknown): MachineSnapshot;
  restoreSnapshot(persisted: object, scope: Scope): MachineSnapshot;
  transition(snapshot: MachineSnapshot, event: XStateEvent, scope: Scope): MachineSnapshot;
  getTransitionData(snapshot: MachineSnapshot, event: XStateEvent): unknown[];
}

export function createActor(logic: object, options: object): Actor;
