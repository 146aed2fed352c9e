"""The server's life: signals, supervised tasks, the configuration taken over while it runs, its end."""
