// The words of docs/runner-protocol.md. No code here but constants.

/** Second field of a step's answer. */
export const Code = {
  changed: 0,
  unchanged: 1,
  denied: 2,
  threw: 3,
  unknownActivation: 4,
  changedWithWork: 5,
} as const;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A value as user code made it: anything at all. */
export type Unknown = unknown;

/** How XState writes a state: a name, or one entry for each active region. */
export type StateValue = string | { [region: string]: StateValue };

/** Another instance, addressed by name. */
export interface InstanceRef {
  type: "statebacked.instance";
  id: string;
  machineName: string;
  machineInstanceName: string;
}

/** Who a message is from, as the engine says. */
export interface Sender {
  machineName: string;
  machineInstanceName: string;
}

/** Which instance a spawn creates. */
export interface SpawnSource {
  machineName: string;
  machineInstanceName: string;
  machineVersionId?: string;
}

export interface MachineEvent {
  type: string;
  [key: string]: unknown;
}

/** What a transition does outside of its instance, written in the same commit. */
export type Effect =
  | { t: "timer"; id: string; delay: number; event: MachineEvent; to?: InstanceRef }
  | { t: "cancel"; id: string }
  /** Of an upgrade only: a pending timer gets another id and event, and keeps its time. */
  | { t: "rename"; id: string; to: string; event: MachineEvent }
  | { t: "send"; to: InstanceRef; event: MachineEvent }
  | { t: "spawn"; id: string; src: SpawnSource; input: unknown }
  | { t: "stop"; id: string }
  | { t: "done"; output?: unknown };

export interface ErrorObject {
  name: string;
  message: string;
  stack?: string;
}

export type LogLevel = "log" | "info" | "warn" | "error" | "debug";

/** The messages `M` and `I`: the bundle as CommonJS, and the platform modules that it requires. */
export interface LoadMessage {
  cjs: string;
  externals: string[];
  /** A migration is only to be checked. */
  kind?: "migration";
}

export const LIMITS = {
  /** State Backed's limit of a context, as JSON in UTF-8. The engine checks it too. */
  contextBytes: 400_000,
  /** Answers are written together, but not more than this many at once. */
  answersPerWrite: 16,
  errorNameBytes: 256,
  errorMessageBytes: 8 * 1024,
  errorStackBytes: 16 * 1024,
  logLineBytes: 8 * 1024,
  /** Log lines and requests that may wait for one commit; what comes later is dropped. */
  waitingPerActivation: 1000,
  fetchBodyBytes: 10 * 1024 * 1024,
  /** How long a promise returned by an authorizer may take. */
  authorizerMs: 5000,
} as const;
