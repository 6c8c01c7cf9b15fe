"""The stations of a tick, in its order. They don't know each other; they meet in the tick."""
