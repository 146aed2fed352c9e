"""The provider's side of an engine process: who waits for it, when it starts, when it ends."""
