"""What every platform promises, wherever it runs: one suite, which each target's folder runs on its own.

Each module holds a class of tests that ask for the fixture ``platform``, a
:class:`tests.conformance.platform.Platform`.
A target's folder subclasses them under names that pytest collects, in the order in which it wants them.
"""
