"""The gate on the wire: HTTP/1.1 between clients and the guarded server.

    listener    accepts, and looks at all deadlines
    client      a client's connection: requests one after the other
    exchange    one request and all that comes of it, in steps:
      asking        whose it is, and whether it may go on
      forwarding    at the server
      answering     a whole answer, judged, held or given
      events        a stream of events, each judged
      delivery      what takes its time at the end
    upstream    connections to the server
    outbox      everything that is written to sockets
    head        heads written; `escrow.http` reads them and their bodies
    stream      events to a client; what its TCP has acknowledged
    sessions    who asked what; identity: who is at the other end; responder: the self-test

Heads are always written anew from what was parsed, so that the two sides can never disagree on where a message ends; bodies are sent exactly
as they were judged. A message that can be judged at once passes from socket to socket without a task.
"""
