"""The scanner as a judge: a JSON-RPC message, or a text, in; a verdict out.

Owns how evidence adds up: a hostile rule or words hidden from people hold by themselves; the classifier's worst window, with what the
signal rules add to it, is compared with the thresholds; whatever was not looked at whole is UNSURE.
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import Final

from enforcer.scanner import head as heads
from enforcer.scanner import model as models
from enforcer.scanner import rules as rule_files
from enforcer.scanner.facts import Facts, Ground, TextFacts, Window
from escrow.leaves import Joined, Json, Leaf, joined, leaves
from escrow.scanner_settings import ScannerSettings
from escrow.taint import CREDENTIAL_CHARS, NOTHING, Named, Sightings, gather, is_credential
from escrow.unpack import Bounds
from escrow.verdict import Finding, Reason, Verdict

JUDGE: Final = "scanner"
MAX_REASONS: Final = 16
RULE_SCORE: Final = 0.99
SIGNALS_ALONE: Final = 3.5
"""Logits that signal rules must add up to in one text to hold it whatever the classifier says."""

DEFINITION_MARGIN: Final = 3.0
"""Logits that the classifier's window must have more where a server describes itself and its tools: such texts instruct by their nature,
and of published servers' lists the classifier would hold every other one. Rules and hidden text count there as everywhere, and a list
that changes is held whatever it says."""

_DEFINITION: Final = re.compile(r"/result/(?:tools|prompts|resources|resourceTemplates)/\d+/|/result/instructions$")

MAX_POINTER_CHARS: Final = 1024
"""Longest pointer reported; a longer one, out of keys an attacker made long, is given as the whole document."""

JUDGE_TEXTS: Final = {
    "model.instruction": "It reads like an instruction to the agent.",
    "scanner.bounds": "It could not be unpacked or read whole within the scanner's bounds.",
    "scanner.signals": "Several signs of an injection meet in it, each too weak alone.",
}


class Scanner:
    """The judge. With a model it judges everything; without, only what it has the scores for (`quick`, in the relay)."""

    def __init__(self, settings: ScannerSettings, with_model: bool) -> None:
        """Opens the rules, the head and, if asked to, the weights: nothing is opened later. Raises model.ModelMissing."""
        self.settings = settings
        self._head = heads.load()
        self._model = models.load() if with_model else None
        self._facts = Facts(rule_files.load(), rule_files.load_definitions(), Bounds(settings.max_depth, settings.max_forms, min(settings.max_chars, 8 << 20)))
        self.fresh: dict[bytes, float] = {}
        """Scores that the last judgement had to compute, by digest of their windows; for the relay's memory."""
        self._named: list[tuple[Leaf, Named]] = []

    def quick(self, document: Json, size_bytes: int) -> Verdict | None:
        """The verdict, if it can be given at once, without the model and within the quick bounds; None asks for a worker."""
        self._named = []
        if size_bytes > self.settings.quick_bytes:
            return None
        started = perf_counter()
        found = leaves(document)
        if len(found) > self.settings.quick_leaves:
            return None
        return self._weigh(found, started, self.settings.quick_windows, quick=True)

    def judge(self, document: Json) -> Verdict:
        """The verdict. Needs the model."""
        started = perf_counter()
        return self._judge(leaves(document), started)

    def judge_text(self, text: str) -> Verdict:
        """The verdict on a text that is no message. Text that is JSON is unpacked as JSON. Needs the model."""
        return self._judge([Leaf("", text)], perf_counter())

    def wanted(self, document: Json) -> set[bytes]:
        """Digests of the windows of a document: the only ones whose scores a worker's answer about it may teach."""
        texts, joins = self._texts(leaves(document))
        return {window.digest for text, _ in texts for window in self._facts.of(text).windows} | {
            window.digest for join in joins for window in self._straddling(join, self._facts.of(join.text))
        }

    def sightings(self) -> Sightings:
        """Whom the message judged last names: e-mail addresses, hosts, accounts. Empty for one that `quick` left to a worker."""
        rows, self._named = self._named, []
        return gather(rows, False) if rows else NOTHING

    def learn(self, scores: dict[bytes, float]) -> None:
        """Remember scores of windows."""
        for key, logit in scores.items():
            self._facts.learn(key, logit)

    def _judge(self, found: list[Leaf], started: float) -> Verdict:
        if self._model is None:
            raise RuntimeError("this scanner was made without a model")
        self.fresh = {}
        verdict = self._weigh(found, started, self.settings.max_windows, quick=False)
        assert verdict is not None
        return verdict

    def _texts(self, found: list[Leaf]) -> tuple[list[tuple[str, str]], list[Joined]]:
        """Distinct texts with their first pointers, and the joined ones."""
        first: dict[str, str] = {}
        for leaf in found:
            if leaf.text not in first:
                first[leaf.text] = leaf.pointer
        return list(first.items()), joined(found) if len(found) > 1 else []

    @staticmethod
    def _straddling(join: Joined, facts: TextFacts) -> list[Window]:
        return [window for window in facts.windows if window.via or join.straddles(*window.span)]

    def _weigh(self, found: list[Leaf], started: float, most_windows: int, quick: bool) -> Verdict | None:
        settings = self.settings
        texts, joins = self._texts(found)
        reasons: list[tuple[float, Reason]] = []
        cut = len(found) > settings.max_leaves
        hostile = False
        read: dict[bytes, tuple[float, float, str, Window]] = {}  # digest → logit with bonus, bonus, pointer, window
        chars = 0
        alone = 0.0
        waiting: list[tuple[str, Window, tuple[Ground, ...]]] = []
        self._named = []
        for text, pointer, join in [(text, pointer, None) for text, pointer in texts[: settings.max_leaves]] + [
            (join.text, join.pointer, join) for join in joins
        ]:
            chars += len(text)
            if chars > 2 * settings.max_chars:
                cut = True
                break
            facts = self._facts.of(text)
            cut |= facts.cut
            if facts.named.mentions or is_credential(pointer, text):
                self._named.append((Leaf(pointer, text if len(text) <= CREDENTIAL_CHARS else ""), facts.named))
            grounds = facts.grounds
            orders: tuple[Ground, ...] = ()
            if _DEFINITION.match(pointer):
                # Two descriptions read as one meet signals that neither has: of those only what holds by itself counts.
                orders = self._facts.described(text)
                orders = orders if join is None else tuple(ground for ground in orders if ground.hostile)
                grounds = (*grounds, *orders)
            for ground in grounds:
                hostile |= ground.hostile
                reasons.append((1.0 if ground.hostile else 0.5, _ground(ground, pointer, join is not None)))
            if grounds:
                alone = max(alone, sum({ground.rule: ground.weight for ground in grounds}.values()))
            waiting.extend((pointer, window, orders) for window in (facts.windows if join is None else self._straddling(join, facts)))
        for pointer, window, orders in waiting:
            if window.digest in read and read[window.digest][1] >= window.bonus:
                continue
            if len(read) >= most_windows:
                if quick:
                    self._named = []
                    return None
                cut = True
                break
            logit = self._logit(window)
            if logit is None:
                if hostile:
                    continue
                self._named = []
                return None
            if _DEFINITION.match(pointer):
                logit += sum(ground.weight for ground in orders if ground.via == window.via and _touches(ground, window)) - DEFINITION_MARGIN
            read[window.digest] = (logit + window.bonus, window.bonus, pointer, window)
        count = len(read)
        threshold = self._head.threshold(count)
        worst = max((entry[0] for entry in read.values()), default=-30.0)
        if alone:
            worst = max(worst, threshold - SIGNALS_ALONE + alone)
        score = self._head.score(worst, count)
        for logit, _, pointer, window in read.values():
            window_score = self._head.score(logit, count)
            if window_score >= settings.unsure_at:
                reasons.append((window_score, _reason("model.instruction", pointer, window.span, window.via)))
        if hostile:
            score = max(score, RULE_SCORE)
        if cut:
            reasons.append((0.9, _reason("scanner.bounds", "", None, ())))
            score = max(score, settings.unsure_at)
        finding = Finding.CLEAN
        if hostile or score >= settings.hostile_at:
            finding = Finding.HOSTILE
        elif cut or score >= settings.unsure_at:
            finding = Finding.UNSURE
        took_ms = (perf_counter() - started) * 1000
        if finding is Finding.CLEAN:
            return Verdict(JUDGE, finding, score, (), took_ms)
        if not reasons:
            reasons.append((score, _reason("scanner.signals", "", None, ())))
        reasons.sort(key=lambda entry: -entry[0])
        return Verdict(JUDGE, finding, score, tuple(reason for _, reason in reasons[:MAX_REASONS]), took_ms)

    def _logit(self, window: Window) -> float | None:
        known = self._facts.score(window.digest)
        if known is None:
            if self._model is None:
                return None
            known = max(self._head.logit(features) for features in self._model.embed(window.text))
            self._facts.learn(window.digest, known)
        if self._model is not None:
            self.fresh[window.digest] = known
        return known


def _touches(ground: Ground, window: Window) -> bool:
    return ground.span is not None and ground.span[0] < window.span[1] and window.span[0] < ground.span[1]


def _ground(ground: Ground, pointer: str, across: bool) -> Reason:
    span = None if across else ground.span
    return Reason(ground.rule, ground.text, pointer if len(pointer) <= MAX_POINTER_CHARS else "", span, ground.via)


def _reason(rule: str, pointer: str, span: tuple[int, int] | None, via: tuple[str, ...]) -> Reason:
    return Reason(rule, JUDGE_TEXTS[rule], pointer if len(pointer) <= MAX_POINTER_CHARS else "", span, via)
