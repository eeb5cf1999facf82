/**
 * Very many subscribers: WebSockets over raw sockets, without any package.
 *
 *   node sockets.mjs '{"ports": [8000], "sockets": 10000, …}'      (see `sockets.py`)
 *
 * Reads commands from its input, one line of JSON each, and answers each with one line of JSON:
 *
 *   {"do": "connect"}                        open all sockets and subscribe each to one instance
 *   {"do": "stall", "instances": 2}          the subscribers of so many read nothing from now on
 *   {"do": "updates", "perSecond", "seconds", "instances"}
 *                                            send events; how long until every subscriber knows
 *   {"do": "count"}                          how many sockets are open
 *
 * An update's latency runs from the answer to its event, which the server sends when it has
 * committed, to the arrival at a subscriber; below zero counts as zero.
 */
import { randomBytes } from "node:crypto";
import net from "node:net";
import readline from "node:readline";

const HEAD_END = Buffer.from("\r\n\r\n");
const TEXT = 1; // opcodes
const PING = 9;
const PONG = 10;
const SETTLE_MS = 3_000; // after the last event, for updates that are still on their way
const UPDATES_MAX = 5_000_000;

const options = JSON.parse(process.argv[2]);
const sockets = []; // {socket, instance}
const latenciesMs = new Float64Array(UPDATES_MAX);
let latencies = 0;
let messages = 0;
let open = 0;
let closed = 0;
let onMessage = () => {};

/** A masked frame, as clients send it. */
function frame(text, opcode = TEXT) {
  const payload = Buffer.from(text, "latin1");
  const head = payload.length < 126 ? 6 : 8;
  const bytes = Buffer.alloc(head + payload.length);
  bytes[0] = 0x80 | opcode;
  if (head === 6) {
    bytes[1] = 0x80 | payload.length;
  } else {
    bytes[1] = 0x80 | 126;
    bytes.writeUInt16BE(payload.length, 2);
  }
  payload.copy(bytes, head); // the mask is zero: the payload stays as it is
  return bytes;
}

/** Opens one socket and resolves when it has heard its instance's present state. */
function connect(number) {
  return new Promise((resolve, reject) => {
    const instance = number % options.instances;
    let partial = null;
    let upgraded = false;
    let subscribed = false;
    const socket = net.connect({
      host: "127.0.0.1",
      port: options.ports[number % options.ports.length],
      noDelay: true,
    });
    const entry = { socket, instance };
    sockets[number] = entry;
    socket.on("connect", () => {
      socket.write(
        `GET /api/rt?token=${options.token} HTTP/1.1\r\nhost: 127.0.0.1:${options.ports[0]}\r\n` +
          "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n" +
          `sec-websocket-key: ${randomBytes(16).toString("base64")}\r\n\r\n`,
      );
    });
    socket.on("error", reject);
    socket.on("close", () => {
      closed++;
      if (!subscribed) {
        reject(new Error("the server closed the socket"));
      }
    });
    socket.on("data", (received) => {
      const now = performance.now();
      let data = partial === null ? received : Buffer.concat([partial, received]);
      partial = null;
      if (!upgraded) {
        const end = data.indexOf(HEAD_END);
        if (end < 0) {
          partial = data;
          return;
        }
        if (data.indexOf("101 ") !== 9) {
          reject(new Error(data.toString("latin1", 0, 200)));
          return;
        }
        upgraded = true;
        data = data.subarray(end + 4);
        socket.write(
          frame(
            `{"type":"subscribe-to-instance","requestId":"1","machineName":"${options.machine}",` +
              `"machineInstanceName":"${options.prefix}${instance}"}`,
          ),
        );
      }
      while (data.length >= 2) {
        let length = data[1] & 0x7f;
        let head = 2;
        if (length === 126) {
          if (data.length < 4) break;
          length = data.readUInt16BE(2);
          head = 4;
        }
        if (data.length < head + length) break;
        if ((data[0] & 0x0f) === TEXT) {
          const text = data.latin1Slice(head, head + length);
          if (subscribed) {
            onMessage(instance, text, now);
          } else {
            if (!text.includes('"instance-update"')) {
              reject(new Error(text));
              return;
            }
            subscribed = true;
            open++;
            resolve();
          }
        }
        if ((data[0] & 0x0f) === PING) {
          socket.write(frame(data.latin1Slice(head, head + length), PONG));
        }
        data = data.subarray(head + length);
      }
      if (data.length > 0) {
        partial = Buffer.from(data);
      }
    });
  });
}

async function connectAll() {
  const started = performance.now();
  let next = 0;
  const timesMs = [];
  async function worker() {
    while (next < options.sockets) {
      const number = next++;
      const begun = performance.now();
      await connect(number);
      timesMs.push(performance.now() - begun);
    }
  }
  await Promise.all(Array.from({ length: options.atOnce }, worker));
  const seconds = (performance.now() - started) / 1000;
  return { seconds, perSecond: options.sockets / seconds, ...percentiles(timesMs) };
}

/** The subscribers of the first instances read nothing any more; the system's buffers fill up. */
function stall(count) {
  const stalled = sockets.filter(({ instance }) => instance < count);
  for (const { socket } of stalled) {
    socket.pause();
  }
  return { stalled: stalled.length };
}

/** Events to one instance after the other, at a steady rate. */
async function updates({ perSecond, seconds, instances }) {
  latencies = 0;
  messages = 0;
  const known = new Map(); // "instance ts" -> when the event was answered
  const early = new Map(); // updates that came before their event's answer: how many
  onMessage = (instance, text, now) => {
    messages++;
    const at = text.indexOf('"ts":') + 5;
    const key = `${instance} ${text.slice(at, text.indexOf(",", at))}`;
    const answered = known.get(key);
    if (answered === undefined) {
      early.set(key, (early.get(key) ?? 0) + 1);
    } else {
      latenciesMs[latencies++] = now - answered;
    }
  };
  const sender = await eventSender((instance, ts, now) => {
    const key = `${instance} ${ts}`;
    known.set(key, now);
    for (let n = early.get(key) ?? 0; n > 0; n--) {
      latenciesMs[latencies++] = 0;
    }
    early.delete(key);
  });
  const started = performance.now();
  const total = Math.round(perSecond * seconds);
  const cpu = process.cpuUsage();
  for (let sent = 0; sent < total; ) {
    const due = Math.min(total, ((performance.now() - started) / 1000) * perSecond);
    while (sent < due) {
      sender.send(sent++ % instances);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const elapsed = (performance.now() - started) / 1000;
  const used = process.cpuUsage(cpu);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  sender.close();
  onMessage = () => {};
  return {
    events: total,
    answered: known.size,
    seconds: elapsed,
    messages,
    cpuSeconds: (used.user + used.system) / 1e6,
    ...percentiles(latenciesMs.subarray(0, latencies)),
  };
}

/** Sends events over one connection, pipelined, and tells of each answer in order. */
function eventSender(onAnswer) {
  const waiting = [];
  let data = Buffer.alloc(0);
  const socket = net.connect({ host: "127.0.0.1", port: options.ports[0], noDelay: true });
  socket.on("data", (received) => {
    const now = performance.now();
    data = Buffer.concat([data, received]);
    for (;;) {
      const end = data.indexOf(HEAD_END);
      if (end < 0) return;
      const head = data.latin1Slice(0, end).toLowerCase();
      const length = Number(head.match(/content-length: (\d+)/)[1]);
      if (data.length < end + 4 + length) return;
      const body = data.latin1Slice(end + 4, end + 4 + length);
      data = data.subarray(end + 4 + length);
      const instance = waiting.shift();
      if (!head.startsWith("http/1.1 200")) {
        throw new Error(`${head}\n${body}`);
      }
      onAnswer(instance, body.match(/"ts":(\d+)/)[1], now);
    }
  });
  const event = '{"event":{"type":"toggle"}}';
  return new Promise((resolve) => {
    socket.on("connect", () =>
      resolve({
        send(instance) {
          waiting.push(instance);
          socket.write(
            `POST /api/machines/${options.machine}/i/${options.prefix}${instance}/events HTTP/1.1\r\n` +
              `host: 127.0.0.1:${options.ports[0]}\r\nauthorization: Bearer ${options.token}\r\n` +
              `content-type: application/json\r\ncontent-length: ${event.length}\r\n\r\n${event}`,
          );
        },
        close: () => socket.destroy(),
      }),
    );
  });
}

function percentiles(values) {
  const sorted = Float64Array.from(values).sort();
  const at = (share) =>
    sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

const commands = {
  connect: connectAll,
  stall: (command) => stall(command.instances),
  updates,
  count: () => ({ open: open - closed }),
};

const lines = readline.createInterface({ input: process.stdin });
for await (const line of lines) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command.do](command);
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
