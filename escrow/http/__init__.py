"""HTTP/1.1 as bytes: one strict reader for the gate, which refuses what it cannot read, and for the taps, which say so.

Pure: bytes come in as arguments. `wire` reads one direction of a connection; `head` is what a head was parsed into.
"""
