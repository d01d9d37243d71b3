"""Everything that touches the world: the root helper, the daemon with its adapters, and the command line.

The adapters (kernel, relay, scanner, store, control) do not import each other; `daemon` wires them.
"""
