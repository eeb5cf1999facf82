// Takes away what customers' code must not have. The process has no permission anyway; what goes
// here would let that code speak in our place (stdout, prompt), end the process, keep data between
// instances, or measure time finely enough to spy on its neighbours.

const REMOVED = [
  "Deno",
  "process",
  "Buffer",
  "global",
  "window",
  "__bootstrap",
  "gc",
  "Worker",
  "SharedWorker",
  "BroadcastChannel",
  "WebSocket",
  "WebSocketStream",
  "EventSource",
  "WebTransport",
  "localStorage",
  "sessionStorage",
  "indexedDB",
  "caches",
  "Cache",
  "CacheStorage",
  "Storage",
  "prompt",
  "alert",
  "confirm",
  "close",
  "closed",
  "onload",
  "onbeforeunload",
  "onunload",
  "GPU",
  "setImmediate",
  "clearImmediate",
];

/** Call it after everything that needs one of these has taken a reference. */
export function lockDown(global: Record<string, unknown>): void {
  for (const name of REMOVED) {
    try {
      delete global[name];
    } catch {
      // not configurable: it stays, and has no permission
    }
  }
  const start = Date.now();
  performance.now = () => Date.now() - start;
}

/** Errors that nobody caught: without these listeners Deno would end, with every instance in flight. */
export function catchStrayErrors(report: (error: unknown) => void): void {
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    report(event.reason);
  });
  addEventListener("error", (event) => {
    event.preventDefault();
    report(event.error);
  });
}

/**
 * Watches for properties that customers' code adds to Object.prototype: every instance of this
 * process would see them. Those that the bundle adds when it is loaded are its own affair.
 */
export class TaintCheck {
  readonly #known = new Set<string>();

  /** What is there now counts as clean; returns the names. */
  accept(): string[] {
    for (const name in {}) {
      this.#known.add(name);
    }
    return [...this.#known];
  }

  /** The name of a new property, if there is one. Costs nothing while there are none. */
  find(): string | undefined {
    for (const name in {}) {
      if (!this.#known.has(name)) {
        return name;
      }
    }
    return undefined;
  }
}
