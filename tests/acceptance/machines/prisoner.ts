/** Looks around in its sandbox, and tries to reach what it should not. XState 5. */
import { assign, fromPromise, setup } from "xstate";

type Findings = Record<string, string>;
type Context = { public: Findings };
type Event = { type: "look" } | { type: "reach"; urls: string[] };

const FORBIDDEN = ["Deno", "process", "require", "Worker", "localStorage", "prompt", "close"];
const PROMISED = [
  "fetch",
  "Request",
  "Response",
  "Headers",
  "URL",
  "TextEncoder",
  "crypto",
  "ReadableStream",
  "CompressionStream",
  "Blob",
  "FormData",
  "AbortController",
  "structuredClone",
  "WebAssembly",
  "atob",
  "setTimeout",
];
const MODULES = ["node:fs", "node:child_process", "npm:lodash", "https://example.com/x.js"];

const typeOf = (name: string) => typeof (globalThis as Record<string, unknown>)[name];

async function outcome(attempt: () => Promise<unknown>): Promise<string> {
  try {
    await attempt();
    return "reached";
  } catch {
    return "refused";
  }
}

async function look(): Promise<Findings> {
  const findings: Findings = {};
  for (const name of [...FORBIDDEN, ...PROMISED]) {
    findings[name] = typeOf(name);
  }
  for (const module of MODULES) {
    findings[module] = await outcome(() => import(module));
  }
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode("abc"));
  findings["sha256"] = String(new Uint8Array(digest)[0]);
  return findings;
}

async function reach(urls: string[]): Promise<Findings> {
  const tries = urls.map(async (url) => [url, await outcome(() => fetch(url))]);
  return Object.fromEntries(await Promise.all(tries));
}

export default setup({
  types: { context: {} as Context, events: {} as Event },
  actors: {
    work: fromPromise(({ input }: { input: Event }) =>
      input.type === "look" ? look() : reach(input.urls),
    ),
  },
}).createMachine({
  context: { public: {} },
  initial: "idle",
  states: {
    idle: { on: { look: "working", reach: "working" } },
    working: {
      invoke: {
        src: "work",
        input: ({ event }) => event as Event,
        onDone: { target: "idle", actions: assign({ public: ({ event }) => event.output }) },
        onError: {
          target: "idle",
          actions: assign({ public: ({ event }) => ({ error: String(event.error) }) }),
        },
      },
    },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;
