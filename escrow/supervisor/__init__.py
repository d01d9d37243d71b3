"""What a supervising agent may ask, and what it is answered: the types that the window and the daemon share.

    scopes.py      what a token may do
    arguments.py   each tool's arguments
    answers.py     each tool's answer
    tools.py       the closed list of tools, with what each needs
    wire.py        one question and one answer between window and daemon
    shown.py       how text that strangers wrote is shown

Pure. The window (`mcp_server`) makes MCP tools of them; the daemon (`enforcer.control.window`) checks every question against them
again, and trusts the window with nothing.
"""
