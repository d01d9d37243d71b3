"""The control socket: how the command line talks to the daemon. One JSON object a line; `server` checks who asks (SO_PEERCRED)."""
