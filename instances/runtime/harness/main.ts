// The runner's process: lines from stdin to a Runner, and what it says to stdout.

import { lockDown, Runner } from "./runner.ts";

const READ_BYTES = 64 * 1024;
const SILENT_SECONDS_MAX = 8;

const { stdin, stdout, exit } = Deno;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Synchronously: if the engine does not keep up, neither do we. */
function write(text: string): void {
  const bytes = encoder.encode(text);
  let written = 0;
  try {
    while (written < bytes.length) {
      written += stdout.writeSync(bytes.subarray(written));
    }
  } catch {
    exit(1); // nobody listens any more, and to say so would fail again
  }
}

/** Seconds without a word of an engine that sends keep-alives; undefined until it sends one. */
let silentSeconds: number | undefined;
// An engine that stands still loses its instances to another node: our services must not go on.
// Seconds are counted, not measured: time in which this process stood still says nothing.
setInterval(() => {
  if (silentSeconds !== undefined && ++silentSeconds >= SILENT_SECONDS_MAX) {
    exit(1);
  }
}, 1000);

/** The lines without keep-alives. */
function heard(lines: string[]): string[] {
  if (lines.includes("A")) {
    silentSeconds = 0;
    return lines.filter((line) => line !== "A");
  }
  silentSeconds &&= 0;
  return lines;
}

const runner = new Runner(write);
runner.install(globalThis as unknown as Record<string, unknown>);
await runner.warmUp();
lockDown(globalThis as unknown as Record<string, unknown>);

const buffer = new Uint8Array(READ_BYTES);
/** The beginning of a line whose end has not come yet, in pieces: it may have megabytes. */
let pieces: string[] = [];
for (;;) {
  const length = await stdin.read(buffer);
  if (length === null) {
    break; // the engine is gone
  }
  const text = decoder.decode(buffer.subarray(0, length), { stream: true });
  if (!text.includes("\n")) {
    pieces.push(text);
    continue;
  }
  const lines = (pieces.length > 0 ? pieces.join("") + text : text).split("\n");
  const rest = lines.pop()!;
  pieces = rest === "" ? [] : [rest];
  runner.feed(heard(lines));
}
exit(0); // services must not outlive the engine
