"""The gate on the wire: HTTP/1.1 between clients and the guarded server.

`listener` accepts, `wire` reads and writes HTTP, `upstream` connects to the server, `sessions` remembers who asked what, `exchange` takes
one request through, `stream` relays server-sent events. Heads are always written anew from what was parsed, so that the two sides can
never disagree on where a message ends; bodies are sent exactly as they were judged.
"""
