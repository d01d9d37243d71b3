"""From the taps' events to messages, and the witness that compares them with what the gate released.

    stream, calls     bytes in order and holes, of one direction of a TCP connection or of a TLS object
    conversation      which protocol a flow speaks, by its first bytes
      http1, http2    heads and bodies; the HTTP/1.1 reader is the gate's own (`escrow.http`)
      body, coding    a body or its events, decompressed, as units
    flow, flows       one flow; the table of all: events in, units out
    unit              what HTTP carried: whole bodies, single events, what is broken
    reading           units in, messages out: JSON-RPC, MCP, and the APIs of language models (`llm`)
    pairs             which request an answer belongs to
    witness           units against what the gate released: `notes` in, each `outcome` out
    doors             listening sockets where no gate stands
    observed          a judged message as an entry of the evidence log

Everything here is pure: events, notes and the time come in as arguments. A hole is never passed over in silence: what it touches is given
with the reason why it is not complete, and nothing incomplete is ever taken for CLEAN or for witnessed.
"""
