"""The command line. `places` finds directories, `render` shows things safely, `app` gathers the commands of the other modules."""

from enforcer.cli.app import main

__all__ = ["main"]
