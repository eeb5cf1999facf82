/**
 * The load generator: HTTP/1.1 over raw sockets, without any package.
 *
 * It shares the machine with the server, so what matters most is that it costs little: requests
 * are laid out as bytes before the clock starts, one is in flight per connection, and an answer is
 * looked at just far enough to know its status and its length.
 *
 *   node load.mjs '{"ports": [8000], "connections": 64, …}'        (see `Options` in load.py)
 *
 * Writes the line `measuring` when the warm-up is over, and one line of JSON at the end.
 */
import net from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n");
const LENGTH = Buffer.from("content-length: ");
const SAMPLES_MAX = 1_000_000;
const ERRORS_MAX = 100; // then something is wrong, and more of it says nothing
const GRACE_MS = 10_000; // for answers that are still on their way at the end
const RECEIVE_BYTES = 65_536;

const options = JSON.parse(process.argv[2]);
const status = Buffer.from(`${options.status} `);
const expected = Buffer.from(options.expect);
const requests = layOutRequests();

const latenciesMs = new Float64Array(SAMPLES_MAX);
let samples = 0;
// Requests by the port that they go to, and how many were taken of each list. Where the server
// does not matter there is one list for all connections.
const lists = options.isHashed
  ? options.ports.map((_, port) => requests.filter((_, n) => n % options.ports.length === port))
  : [requests];
const started = lists.map(() => 0);
let inFlight = 0;
let acknowledged = 0; // over the whole run, warm-up included
let refused = 0; // with 503, where that is no error
let errors = 0;
let firstError = "";
let measuring = false;
let stopping = false;
let finished = false;
let measuredFrom = 0;
let measuredUntil = 0;
let cpu = process.cpuUsage();

const giveUpMs = options.warmupMs + options.durationMs + GRACE_MS;
setTimeout(() => finish(`no end after ${giveUpMs} ms`), giveUpMs).unref();
if (options.cycle) {
  setTimeout(startMeasuring, options.warmupMs);
} else {
  startMeasuring();
}
for (let n = 0; n < options.connections; n++) {
  connect(n % options.ports.length);
}

/** Every request as it goes over the wire; `{n}` in path and body is the number of its instance. */
function layOutRequests() {
  const { method, path, body, headers } = options;
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return Array.from({ length: options.instances }, (_, index) => {
    const n = options.first + index * options.stride;
    const content = body.replaceAll("{n}", n);
    return Buffer.from(
      `${method} ${path.replaceAll("{n}", n)} HTTP/1.1\r\nhost: 127.0.0.1:${options.ports[0]}\r\n` +
        `${head}content-length: ${Buffer.byteLength(content)}\r\n\r\n${content}`,
    );
  });
}

/** The next request for that server, or undefined when there are no more to send. */
function nextRequest(server) {
  const n = options.isHashed ? server : 0;
  if (stopping || (!options.cycle && started[n] === lists[n].length)) {
    return undefined;
  }
  return lists[n][started[n]++ % lists[n].length];
}

function connect(server) {
  const buffer = Buffer.allocUnsafe(RECEIVE_BYTES);
  let partial = null; // of an answer that came in pieces
  let waiting = false;
  let sentAt = 0;

  const socket = net.connect({
    host: "127.0.0.1",
    port: options.ports[server],
    noDelay: true,
    onread: { buffer, callback: receive },
  });
  socket.on("connect", () => send(performance.now()));
  socket.on("error", (error) => fail(`connection: ${error.message}`));
  socket.on("close", () => {
    if (waiting) {
      fail("the server closed a connection");
    }
  });

  function send(now) {
    const request = nextRequest(server);
    if (request === undefined) {
      socket.end();
      if (inFlight === 0) {
        finish();
      }
      return;
    }
    sentAt = now;
    waiting = true;
    inFlight++;
    socket.write(request);
  }

  function receive(size, received) {
    let answer = received.subarray(0, size);
    if (partial !== null) {
      answer = Buffer.concat([partial, answer]);
    }
    if (!isWhole(answer)) {
      partial = Buffer.from(answer); // the buffer is used again for what comes next
      return true;
    }
    partial = null;
    const now = performance.now();
    waiting = false;
    inFlight--;
    if (answer.indexOf(status) === 9 && answer.includes(expected)) {
      acknowledged++;
      if (measuring && samples < SAMPLES_MAX) {
        latenciesMs[samples++] = now - sentAt;
      }
    } else if (options.mayRefuse && answer.indexOf("503 ") === 9) {
      refused++;
    } else {
      fail(answer.toString("latin1", 0, 600));
    }
    if (measuring && now >= measuredUntil) {
      stopMeasuring(now);
    }
    send(now);
    return true;
  }
}

/** Whether `answer` holds a whole response; there is never more than one in flight. */
function isWhole(answer) {
  const headEnd = answer.indexOf(HEAD_END);
  if (headEnd < 0) {
    return false;
  }
  let at = answer.indexOf(LENGTH) + LENGTH.length;
  let length = 0;
  for (; answer[at] !== 0x0d; at++) {
    length = length * 10 + answer[at] - 0x30;
  }
  return answer.length >= headEnd + HEAD_END.length + length;
}

function startMeasuring() {
  process.stdout.write("measuring\n");
  measuredFrom = performance.now();
  measuredUntil = options.cycle ? measuredFrom + options.durationMs : Infinity;
  cpu = process.cpuUsage();
  measuring = true;
}

function stopMeasuring(now) {
  measuring = false;
  stopping = true;
  measuredUntil = now;
  cpu = process.cpuUsage(cpu);
}

function fail(message) {
  firstError ||= message;
  errors++;
  if (errors >= ERRORS_MAX) {
    finish();
  }
}

function finish(problem) {
  if (finished) {
    return;
  }
  finished = true;
  if (measuring) {
    stopMeasuring(performance.now());
  }
  if (problem) {
    firstError ||= problem;
    errors++;
  }
  const sorted = latenciesMs.subarray(0, samples).sort();
  const seconds = (measuredUntil - measuredFrom) / 1000;
  const result = {
    measured: samples,
    acknowledged,
    refused,
    errors,
    firstError,
    seconds,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    maxMs: percentile(sorted, 1),
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
  };
  process.stdout.write(JSON.stringify(result) + "\n", () => process.exit(0));
}

function percentile(sorted, share) {
  return sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}
