// Parallel inside parallel, with transitions between regions and out of the depths.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "player",
  initial: "loading",
  states: {
    loading: { invoke: { src: "loadTrack", onDone: "ready", onError: "broken" } },
    broken: { on: { RETRY: "loading" } },
    ready: {
      type: "parallel",
      on: { EJECT: "loading" },
      states: {
        playback: {
          initial: "paused",
          states: {
            paused: { on: { PLAY: "playing" } },
            playing: {
              type: "parallel",
              on: { PAUSE: "paused", END: "paused" },
              states: {
                speed: { initial: "normal", states: { normal: { on: { FASTER: "fast" } }, fast: { on: { SLOWER: "normal" } } } },
                subtitles: { initial: "hidden", states: { hidden: { on: { SHOW: "shown" } }, shown: { on: { HIDE: "hidden", CRASH: "#player.broken" } } } },
              },
            },
          },
        },
        volume: {
          initial: "normal",
          states: { normal: { on: { MUTE: "muted" } }, muted: { on: { UNMUTE: "normal", SILENT_PAUSE: "#player.ready.playback.paused" } } },
        },
      },
    },
  },
});
