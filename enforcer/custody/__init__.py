"""Custody of everything that passes: judged, recorded, and released, held or refused.

    requests.py     what clients send: on, held or refused
    custody.py      what the server sends: released, held or refused; and the whole
    people.py       what people say of it, and may see
    executor.py     the gate's orders on held items carried out: clock, waiters, store
    ticket.py       who waits at a held item
    items.py        what a held message is written down as
    judging.py      which judges speak about a message, and what they say together
    speculating.py  runs of calls in twins, beside the calls
    reverting.py    the state from before a call, kept and put back
    definitions.py  tool definitions: trusted on first use, changes held
    records.py      the place that every decision passes before it takes effect
    traffic.py      what goes in and out: arrivals, outcomes, calls under way
    under_way.py    calls on their way through the server
    custodian.py    the store, as custody uses it

All of it belongs to the daemon's one event loop; the store is used in one thread of its own.
"""

from enforcer.custody.custodian import Custodian, StoreFailed
from enforcer.custody.custody import Custody
from enforcer.custody.judging import Judges, Said
from enforcer.custody.people import Lock
from enforcer.custody.records import record_json
from enforcer.custody.reverting import Answer, Clones
from enforcer.custody.speculating import Speculation, Speculator
from enforcer.custody.ticket import Ticket
from enforcer.custody.traffic import Arrival, Counters, Outgoing, Running

__all__ = [
    "Answer", "Arrival", "Clones", "Counters", "Custodian", "Custody", "Judges", "Lock", "Outgoing", "Running", "Said", "Speculation", "Speculator",
    "StoreFailed", "Ticket", "record_json",
]  # fmt: skip
