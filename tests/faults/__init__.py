"""Everything that breaks, broken on purpose around real instances: processes killed, disks full, stores locked, clocks that jump, clients that stall.

What must hold each time: no client sees what nobody decided, what was held is still held and is released once a person says so, the tool ran once,
the evidence is sound, and the next honest client is served.
"""
