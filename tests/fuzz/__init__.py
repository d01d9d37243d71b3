"""Hostile input: every parser under random and built bytes, and the real gate between clients and servers that do not agree on what they read.

    targets      one function for each parser: bytes in, AssertionError where a promise breaks
    test_*       the same functions under hypothesis, bounded, and real instances under what is known to split parsers

`python -m tests.fuzz NAME [seconds]` runs one target under atheris (coverage-guided, `pip install atheris`), for as long as one likes.
"""
