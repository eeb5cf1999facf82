// What the rest of the harness knows of XState: one machine version (`Adapter`) and one running copy
// of it (`Instance`), whatever the major version.
//
// The life of a step:
//
//   transition(event)  computes, and keeps everything that would be visible outside for later
//   adopt(context)     the answer was sent: the next step starts from what reads back from its JSON
//   run()              the commit is durable: actions run, services start and stop, messages go out
//
// or, when user code threw, rollback(). The first step of an instance is begin() in the place of
// transition(). An instance that comes from another version is loaded like any other, and then told
// of it by arrive().

import type {
  Effect,
  ErrorObject,
  InstanceRef,
  LogLevel,
  MachineEvent,
  Sender,
  SpawnSource,
  StateValue,
} from "./protocol.ts";
import type { Service, Services } from "./services.ts";
import type { Active, After, Description, Kept, Remembered, StateShape } from "./upgrade.ts";

/** One machine version in this process. */
export interface Adapter {
  readonly major: 4 | 5;
  /** A new instance that has no state yet. */
  create(host: Host, parent: InstanceRef | undefined): Instance;
  /** Mounts a committed snapshot. Throws if it does not fit the machine. */
  load(host: Host, snapshot: Snapshot): Instance;
  /** The event, as the machine wants it, of JSON that came with a message. */
  event(parsed: MachineEvent): unknown;
  /** The error event of a service that was lost. */
  lost(serviceId: string, error: ErrorObject): unknown;

  /** The states of the machine. */
  readonly shape: StateShape;
  /** What `extra` holds of states that were left. */
  historyIn(extra: any): Description["history"]; // any: as in Snapshot
  /** What `extra` would hold in these states. */
  extraOf(active: Active, remembered: readonly Remembered[], kept: Kept): object;
  /** Milliseconds, or anything else if the machine does not say how many. */
  delayOf(after: After, context: unknown): unknown;
}

/** What is stored of an instance, parsed. */
export interface Snapshot {
  value: StateValue;
  done: boolean;
  /** Written by `Instance.extra()`, if there was anything. */
  extra: any; // any: each adapter reads back what it wrote
  context: string;
}

/** What an instance needs of its activation. */
export interface Host {
  readonly services: Services;
  /**
   * An event for the machine itself: it waits in the inbox. `data` is what to show of it, `service`
   * who sent it; `ends` if that is the last word of the service.
   */
  receive(event: unknown, data: unknown, service: Service | undefined, ends: boolean): void;
  log(level: LogLevel, args: unknown[]): void;
}

/** One running copy of a machine. */
export interface Instance {
  /** The state after the last computation. */
  readonly value: StateValue;
  readonly context: unknown;
  readonly tags: Iterable<string>;
  readonly done: boolean;
  /** What the last computation wrote down for its commit. */
  readonly effects: readonly Effect[];
  readonly report: Report | undefined;
  /** Something has to run once the last computation is committed. */
  readonly hasWork: boolean;

  /** Computes the initial state. `given` is the context given by the creator. */
  begin(given: Record<string, unknown>): void;
  /** Computes a macrostep; false if the machine does nothing about the event. */
  transition(event: unknown): boolean;
  /** As transition(), for the end of a persistent child; false if `sender` is none of its children. */
  childEnded(event: MachineEvent, id: string, sender: Sender): boolean;
  /** A step in which the machine has no part: it does nothing, hence false. */
  skip(): false;
  /** Stops a service that is taken for lost, if it still runs. */
  abandon(service: Service): void;
  /** What else must be stored, as JSON text; empty for most machines. */
  extra(): string;
  /** Replaces the context by what reads back from its JSON; returns that. */
  adopt(contextJson: string): any; // any: user data
  /** After a throw, while services live: as it was before the computation. */
  rollback(contextJson: string): void;
  /** After load(): these are the effects of the upgrade that has led here, unless here is the end. */
  arrive(effects: Effect[]): void;
  run(): void;
  /** Whether a copy loaded from what is stored would be another one, now that no service is left. */
  readonly mustReload: boolean;
  runs(service: Service): boolean;
  /** Stops everything that runs. */
  dispose(): void;

  /** `spawnPersistentInstance()` while a transition is computed; one with a name can be sent to by it. */
  spawnPersistent(id: string, isNamed: boolean, source: SpawnSource, input: unknown): void;
  /** `spawnEphemeralInstance()` while a transition is computed. */
  spawnEphemeral(entity: unknown, id: string, options: object | undefined): unknown;
}

/** Names for people, of what a step does besides changing state. */
export interface Report {
  actions: string[];
  started: string[];
  stopped: string[];
}
