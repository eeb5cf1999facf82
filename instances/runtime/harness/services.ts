// The ephemeral services of one activation: what the answers list as `children`.

import { stringify } from "./primordials.ts";

/** One run of a service. A new run under the same id is another object. */
export interface Service {
  readonly id: string;
  /** What people call it; only shown. */
  readonly src: string;
  /** It was lost with the process that ran it: only a stand-in is left. */
  readonly lost: boolean;
  /** What the adapter knows it by, if it keeps something. */
  actor: unknown;
  /** Its done or error event waits in the inbox: it lives no more, but is still owed to the machine. */
  ending: boolean;
}

/** In the order in which they were started. */
export class Services {
  #byId = new Map<string, Service>();
  #json: string | undefined = "[]";

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): Service | undefined {
    return this.#byId.get(id);
  }

  values(): Iterable<Service> {
    return this.#byId.values();
  }

  start(id: string, src: string, actor: unknown): void {
    this.#add({ id, src, lost: false, actor, ending: false });
  }

  /** One that `L` says was running. */
  mountLost(id: string, src: string): void {
    this.#add({ id, src, lost: true, actor: undefined, ending: false });
  }

  #add(service: Service): void {
    this.#byId.delete(service.id); // a restart comes last in the order
    this.#byId.set(service.id, service);
    this.#json = undefined;
  }

  /** True if it was there. */
  remove(id: string): boolean {
    const removed = this.#byId.delete(id);
    if (removed) {
      this.#json = undefined;
    }
    return removed;
  }

  clear(): void {
    if (this.#byId.size > 0) {
      this.#byId.clear();
      this.#json = "[]";
    }
  }

  /** Puts everything back as it was when `copy` was taken: the step that changed it threw. */
  restore(copy: Service[]): void {
    this.#byId.clear();
    for (const service of copy) {
      this.#byId.set(service.id, service);
    }
    this.#json = undefined;
  }

  /** `[{"id":…,"src":…},…]` */
  json(): string {
    this.#json ??= stringify([...this.#byId.values()].map(({ id, src }) => ({ id, src })))!;
    return this.#json;
  }
}
