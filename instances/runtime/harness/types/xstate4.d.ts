// What we use of XState 4, private parts included. Objects may come from another copy than ours, so
// nothing here is a class to test for.

export interface ScxmlEvent {
  name: string;
  data: any; // any: user data
  $$type: "scxml";
  type: string;
  origin?: string;
}

export interface Action {
  type: string;
  exec?: unknown;
  [key: string]: any; // any: each builtin type has its own
}

export interface Actor {
  id: string;
  send(event: unknown): void;
  stop?(): void;
  getSnapshot?(): unknown;
  subscribe?(...args: unknown[]): unknown;
  toJSON?(): unknown;
  "@@observable"?(): unknown;
  /** This and what follows: only those of machines. */
  status?: number;
  sessionId?: string;
  parent?: unknown;
}

export type StateValue = string | { [region: string]: StateValue };

export interface State {
  value: StateValue;
  context: any; // any: user data
  _event: ScxmlEvent;
  event: unknown;
  _sessionid: string | null;
  historyValue: unknown;
  history: unknown;
  actions: Action[];
  activities: Record<string, unknown>;
  children: Record<string, Actor>;
  configuration: StateNode[];
  nextEvents: string[];
  tags: Set<string>;
  done: boolean;
  changed?: boolean;
}

/** What was last active in a state, and in each of those inside of it. */
export interface HistoryTree {
  current: StateValue;
  states?: Record<string, HistoryTree>;
}

export interface StateNode {
  id: string;
  path: string[];
  type: string;
  initial: unknown;
  history: unknown;
  states: Record<string, StateNode>;
  after: { delay: unknown; eventType: string }[];
  historyValue(value: StateValue): HistoryTree;
  parent?: StateNode;
  doneData?: unknown;
  initialStateValue?: unknown;
  transitions: { cond?: { predicate?: unknown }; actions: Action[] }[];
  onEntry: Action[];
  onExit: Action[];
  invoke?: { id: string; meta?: any }[]; // any: user data
  meta?: unknown;
}

export interface Machine extends StateNode {
  config: { predictableActionArguments?: boolean };
  options: Record<
    "actions" | "guards" | "services" | "activities" | "delays",
    Record<string, any> // any: user code
  >;
  idMap: Record<string, StateNode>;
  _context: unknown;
  _init?(): void;
  getInitialState(value: unknown, context: unknown): State;
  resolveState(config: object): State;
  transition(state: State, event: ScxmlEvent, context?: undefined, exec?: Collect): State;
}

export type Collect = (action: Action, context: unknown, event: ScxmlEvent) => void;

export class Interpreter {
  constructor(machine: Machine);
  sessionId: string;
  status: number;
  initialized: boolean;
  parent: unknown;
  children: Map<string, Actor>;
  forwardTo: Set<string>;
  clock: { clearTimeout(id: unknown): void };
  delayedEventsMap: Record<string, unknown>;
  _state: State;
  _outgoingQueue: [Actor, unknown][];
  send: (event: unknown, payload?: object) => unknown;
  update(state: State, event: ScxmlEvent): void;
  spawn(entity: unknown, name: string, options?: object): Actor;
  spawnMachine(machine: Machine, options?: object): Actor;
  _exec(action: Action, context: unknown, event: ScxmlEvent): void;
  _stopChildren(): void;
  stopChild(id: string): void;
  removeChild(id: string): void;
}

export const initEvent: ScxmlEvent;
export const registry: {
  register(id: string, service: Interpreter): void;
  get(id: string): Actor | undefined;
  free(id: string): void;
};
export function provide<T>(service: Interpreter | undefined, run: () => T): T;
export function mapContext(mapper: unknown, context: unknown, event: ScxmlEvent): unknown;
export function toEventObject(event: unknown, payload?: object): { type: string };
export function toInvokeSource(source: unknown): { type: string };
export function toSCXMLEvent(event: object): ScxmlEvent;
