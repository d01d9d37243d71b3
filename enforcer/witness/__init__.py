"""The witness in the daemon: the taps' events become messages, and are compared with what the gate noted.

    adapter    events and notes in, alarms and messages out; the clock

It needs nothing of the machine but time: the ring's descriptor, the doors' snapshots and the relay are somebody else's.
"""

from enforcer.witness.adapter import Alarm, WitnessAdapter

__all__ = ["Alarm", "WitnessAdapter"]
