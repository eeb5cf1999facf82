// fetch() without any network permission: the request goes to the engine as a line, which resolves
// the name, refuses addresses that customers' code must not reach, and streams the answer back.

import { LIMITS } from "./protocol.ts";
import { parse, stringify } from "./primordials.ts";
import { type Turn, turns } from "./turn.ts";

const { Request, Response, ReadableStream, DOMException, URL } = globalThis;
const BODILESS = new Set([101, 204, 205, 304]);

interface Pending {
  turn: Turn | undefined;
  resolve: (response: Response) => void;
  reject: (error: unknown) => void;
  /** Set once the head has come: what comes then belongs to the body. */
  body: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** The user's abort signal; no longer of interest once the answer is complete. */
  unsubscribe: () => void;
}

type News =
  | {
    head: {
      status: number;
      statusText?: string;
      headers: [string, string][];
      url: string;
      redirected?: boolean;
    };
  }
  | { chunk: string }
  | { end: true }
  | { error: string };

export class FetchBroker {
  readonly #write: (line: string) => void;
  readonly #pending = new Map<string, Pending>();
  #count = 0;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  /** The global `fetch`. */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const turn = turns.getStore();
    const request = new Request(input, init);
    const { protocol } = new URL(request.url);
    if (protocol !== "https:" && protocol !== "http:") {
      throw new TypeError(`fetch: URL scheme "${protocol.slice(0, -1)}" is not supported`);
    }
    const body = request.body === null ? null : await readBody(request);
    request.signal.throwIfAborted();
    await committed(turn);
    if (turn?.activation.closed) {
      throw unloaded(); // since it was let through: the engine has dropped it in the same write
    }
    request.signal.throwIfAborted();
    return await this.#send(request, body, turn);
  };

  #send(request: Request, body: string | null, turn: Turn | undefined): Promise<Response> {
    const fid = String(++this.#count);
    return new Promise((resolve, reject) => {
      const abort = () => this.#abort(fid, request.signal.reason);
      request.signal.addEventListener("abort", abort);
      const unsubscribe = () => request.signal.removeEventListener("abort", abort);
      this.#pending.set(fid, { turn, resolve, reject, body: undefined, unsubscribe });
      const { method, url, redirect } = request;
      const message = stringify({ method, url, headers: [...request.headers], body, redirect });
      this.#write(`F\t${fid}\t${turn?.activation.id ?? ""}\t${message}\n`);
    });
  }

  /** A line `F fid json` of the engine. */
  receive(fid: string, json: string): void {
    const pending = this.#pending.get(fid);
    if (pending === undefined) {
      return; // aborted meanwhile
    }
    const news = parse(json) as News;
    if ("head" in news) {
      this.#open(fid, pending, news.head);
    } else if ("chunk" in news) {
      pending.body?.enqueue(Uint8Array.fromBase64(news.chunk));
    } else if ("end" in news) {
      this.#forget(fid, pending);
      pending.body?.close();
    } else {
      this.#fail(fid, pending, new TypeError(news.error));
    }
  }

  #open(fid: string, pending: Pending, head: Extract<News, { head: unknown }>["head"]): void {
    let body: ReadableStream<Uint8Array> | null = null;
    if (!BODILESS.has(head.status)) {
      body = new ReadableStream({
        start: (controller) => {
          pending.body = controller;
        },
        cancel: () => {
          this.#forget(fid, pending);
          this.#write(`Q\t${fid}\n`);
        },
      });
    }
    try {
      const { status, statusText, headers, url, redirected } = head;
      const response = new Response(body, { status, statusText: statusText ?? "", headers });
      Object.defineProperty(response, "url", { value: url });
      Object.defineProperty(response, "redirected", { value: redirected === true });
      pending.resolve(response);
    } catch (error) {
      this.#write(`Q\t${fid}\n`);
      this.#fail(fid, pending, error); // a status that Response does not take
    }
  }

  #abort(fid: string, reason: unknown): void {
    const pending = this.#pending.get(fid);
    if (pending !== undefined) {
      this.#write(`Q\t${fid}\n`);
      this.#fail(fid, pending, reason);
    }
  }

  /** Ends what an activation that is no more still has under way. */
  abortAllOf(activation: unknown): void {
    for (const [fid, { turn }] of this.#pending) {
      if (turn?.activation === activation) {
        this.#abort(fid, unloaded());
      }
    }
  }

  #fail(fid: string, pending: Pending, error: unknown): void {
    this.#forget(fid, pending);
    if (pending.body === undefined) {
      pending.reject(error);
    } else {
      pending.body.error(error);
    }
  }

  #forget(fid: string, pending: Pending): void {
    this.#pending.delete(fid);
    pending.unsubscribe();
  }
}

function unloaded(): DOMException {
  return new DOMException("The instance was unloaded", "AbortError");
}

/** Resolves when the gate of the turn's activation lets through; never, if the turn came to nothing. */
function committed(turn: Turn | undefined): Promise<void> | undefined {
  if (turn === undefined) {
    return undefined;
  }
  return new Promise((resolve) => turn.activation.whenCommitted(turn, false, resolve));
}

async function readBody(request: Request): Promise<string> {
  const bytes = new Uint8Array(await request.arrayBuffer());
  if (bytes.length > LIMITS.fetchBodyBytes) {
    throw new TypeError(`fetch: the body has more than ${LIMITS.fetchBodyBytes} bytes`);
  }
  return bytes.toBase64();
}
