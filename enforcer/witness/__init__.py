"""The witness: the taps' events become messages, and are compared with what the gate noted.

    adapter    events and notes in, alarms and messages out; the clock
    process    beside a gate: its own process         client     the daemon's end of that
    notes      what the daemon tells it, as bytes     language   what it tells the daemon
    local      which addresses are the machine's own

It needs nothing of the machine but time: the ring's descriptor, the doors' snapshots and the relay are somebody else's.
"""

from enforcer.witness.adapter import Alarm, WitnessAdapter

__all__ = ["Alarm", "WitnessAdapter"]
