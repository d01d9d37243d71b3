"""The judges as custody knows them, made of the scanner in the relay, its workers, the judge of what goes out, and the jury."""

from __future__ import annotations

from enforcer.custody import Answer, Clones, Judges, Said
from enforcer.jury.client import Jury
from enforcer.known import Known, key_of
from enforcer.sandbox.client import Twins
from enforcer.sandbox.way_back import Order, Verb
from enforcer.scanner.judge import Scanner
from enforcer.scanner.outgoing import Outgoing, document
from enforcer.scanner.pool import WorkerPool
from escrow import jsonrpc
from escrow.verdict import Verdict


def judges_of(scanner: Scanner, outgoing: Outgoing, requests: Known, pool: WorkerPool, jury: Jury | None, twins: Twins | None = None) -> Judges:
    """requests: what was said of clients' messages; whoever changes what `outgoing` watches for clears it. jury: None where the policy has none."""
    clones = None if twins is None else _clones(twins)
    results = Known()
    declined: jsonrpc.Message | None = None
    """The small message of which nothing could be said at once, last: the worker's next, and not to be looked at here again."""

    def quick(message: jsonrpc.Message) -> Said | None:
        nonlocal declined
        key = key_of(message)
        if (known := results.get(key)) is not None:
            return known
        verdict = scanner.quick(document(message), len(message.raw))
        if verdict is None:
            declined = message if len(message.raw) <= scanner.settings.quick_bytes else None
            return None
        return results.put(key, Said(verdict, scanner.sightings()))

    async def result(message: jsonrpc.Message) -> Said:
        if message is not declined and (said := quick(message)) is not None:
            return said
        answer = await pool.answer(message.raw)
        return Said(answer.verdict, answer.seen)

    def request_quick(message: jsonrpc.Message) -> Said | None:
        key = key_of(message)
        if (known := requests.get(key)) is not None:
            return known
        examined = outgoing.quick(document(message), len(message.raw))
        return None if examined is None else requests.put(key, Said(examined.verdict, examined.seen))

    async def request(message: jsonrpc.Message) -> Said:
        examined = await pool.examine(message.raw, outgoing)
        return Said(examined.verdict, examined.seen)

    if jury is None:
        return Judges(result, quick, request, request_quick, twins=twins, clones=clones)
    member = jury

    async def juror(message: jsonrpc.Message, scanner_said: Verdict) -> Verdict | None:
        return await member.judge(message.raw, scanner_said)

    return Judges(result, quick, request, request_quick, juror, member.in_band, twins, clones)


def _clones(twins: Twins) -> Clones:
    async def ask(server: str, verb: Verb, token: str) -> Answer:
        told = await twins.way_back(server, Order(verb, token))
        return Answer(told.token, told.why, told.changes, told.more, told.done)

    return ask
