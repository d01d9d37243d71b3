"""The supervisor's window: an MCP server in a process of its own, unprivileged, that knows nothing and decides nothing.

It turns HTTP requests into questions to the daemon and answers into MCP; the daemon checks every question's token, scope and arguments
(`enforcer.control.window`). It has its listening sockets, one socket to the daemon, an empty root, and no secret but the tokens that pass.

    program.py    the two steps of its life: import everything, then serve
    listening.py  HTTP: bounds on connections, bodies and time
    guard.py      before MCP: path, method, origin, bearer token
    tools.py      the tools, made from escrow.supervisor.tools
    resources.py  records and items as resources
    link.py       questions to the daemon
"""
