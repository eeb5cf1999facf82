// The tab's socket: tells of each new state of one instance, and comes back when it was lost.

const FIRST_RETRY_MS = 500;
const RETRY_MS_MAX = 15_000;

/** `heard` has moved(state), behind(seq) after a connection, and deleted(). */
export function follow({ org, machine, instance }, heard) {
  let retryMs = FIRST_RETRY_MS;

  function connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    socket.addEventListener("open", () => socket.send(JSON.stringify({ org, machine, instance })));
    socket.addEventListener("message", (event) => {
      retryMs = FIRST_RETRY_MS;
      tell("live");
      const message = JSON.parse(event.data);
      if (message.type === "moved") heard.moved(message);
      else if (message.type === "watching") heard.behind(message.seq);
      else if (message.type === "deleted") heard.deleted();
    });
    socket.addEventListener("close", () => {
      tell("lost");
      // Not all tabs at the same moment, when a server comes back.
      setTimeout(connect, retryMs * (0.5 + Math.random()));
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    });
  }

  connect();
}

function tell(state) {
  document.dispatchEvent(new CustomEvent("live", { detail: { state } }));
}
