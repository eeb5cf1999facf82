// Tries to get out of the sandbox, and reports what each attempt came to.
import { createMachine } from "npm:xstate@5";

/** esbuild leaves this alone. */
const load = (name) => import(name);

const attempts = {
  "global Deno": () => typeof globalThis.Deno,
  "global process": () => typeof globalThis.process,
  "global of a function": () =>
    typeof (function () {
      return this;
    })()?.Deno,
  "constructor of functions": () => typeof Function("return this.Deno")(),
  "Deno through a symbol": () =>
    Object.getOwnPropertySymbols(globalThis).map((symbol) => typeof globalThis[symbol]?.core)
      .join(),
  "fs": async () => (await load("node:fs")).readFileSync("/etc/passwd", "utf8"),
  "fs without scheme": async () => (await load("fs")).readFileSync("/etc/passwd", "utf8"),
  "fs through a computed name": async () =>
    (await load(["node", "fs"].join(":"))).readFileSync("/etc/passwd", "utf8"),
  "process": async () => (await load("node:process")).default.exit(7),
  "child_process": async () => (await load("node:child_process")).execSync("id"),
  "worker_threads": async () => (await load("node:worker_threads")).Worker,
  "module": async () => (await load("node:module")).createRequire("file:///x")("fs"),
  "vm": async () => (await load("node:vm")).runInNewContext("typeof Deno"),
  "remote import": async () => await load("https://example.com/x.js"),
  "npm import": async () => await load("npm:lodash"),
  "jsr import": async () => await load("jsr:@std/fs"),
  "file import": async () => await load("file:///etc/passwd"),
  "nested data import": async () => await load("data:text/javascript,import 'node:fs'"),
  "blob import": async () =>
    await load(URL.createObjectURL(new Blob(["import 'node:fs'"], { type: "text/javascript" }))),
  "main import": async () => await load("./main.js"),
  "Worker": () => new Worker("data:text/javascript,1", { type: "module" }),
  "BroadcastChannel": () => new BroadcastChannel("x"),
  "WebSocket": () => new WebSocket("ws://127.0.0.1:1"),
  "EventSource": () => new EventSource("http://127.0.0.1:1"),
  "localStorage": () => localStorage.length,
  "caches": () => caches.open("x"),
  "prompt": () => prompt("x"),
  "close": () => close(),
  "fine clock": () => (performance.now() % 1) !== 0 && "fine",
  "shared memory clock": () =>
    typeof SharedArrayBuffer !== "undefined" && new SharedArrayBuffer(8) && "",
};

// Those are in order: nothing is given away by them.
const HARMLESS = new Set(["undefined", "", "false", "undefined,undefined", "object"]);

async function run() {
  const got = [];
  for (const [name, attempt] of Object.entries(attempts)) {
    try {
      const result = String(await attempt());
      if (!HARMLESS.has(result)) {
        got.push(`${name}: ${result.slice(0, 80)}`);
      }
    } catch {
      // denied
    }
  }
  return got;
}

export const allowRead = () => true;
export const allowWrite = () => true;
export default createMachine({
  on: {
    ATTACK: { actions: async () => console.log("got", ...(await run())) },
    WEB: {
      actions: () => {
        const names = [
          "fetch",
          "Request",
          "Response",
          "Headers",
          "URL",
          "URLSearchParams",
          "TextEncoder",
          "TextDecoder",
          "crypto",
          "ReadableStream",
          "CompressionStream",
          "Blob",
          "FormData",
          "AbortController",
          "structuredClone",
          "WebAssembly",
          "atob",
          "btoa",
          "setTimeout",
          "setInterval",
          "queueMicrotask",
          "Intl",
        ];
        console.log(
          "missing",
          ...names.filter((name) => globalThis[name] === undefined),
          typeof crypto.subtle?.digest,
        );
      },
    },
    STRAY: {
      actions: () => {
        Promise.reject(new Error("stray promise"));
        setTimeout(() => {
          throw new Error("stray timer");
        }, 1);
      },
    },
    BIG: { actions: ({ event }) => console.log("length", event.text.length) },
  },
});
