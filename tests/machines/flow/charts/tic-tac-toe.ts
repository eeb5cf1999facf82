// Eventless transitions that end a game.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "ticTacToe",
  initial: "playing",
  states: {
    playing: {
      always: [{ target: "gameOver.winner", guard: "checkWin" }, { target: "gameOver.draw", guard: "checkDraw" }],
      on: { PLAY: { guard: "isValidMove", actions: "updateBoard" } },
    },
    gameOver: {
      initial: "winner",
      states: { winner: { tags: "winner", entry: "setWinner" }, draw: { tags: "draw" } },
      on: { RESET: { target: "playing", actions: "resetGame" } },
    },
  },
});
