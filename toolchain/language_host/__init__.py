"""A language host for Pulumi programs, policy packs and component packages written in Python.

It serves where the vendor's own host cannot be reached, and speaks the same protocol: the command line starts it with
the engine's address, reads a port from its standard output, and calls the ``LanguageRuntime`` service there. The
installer copies this package into the tool's folder together with the wheels that it imports, so it uses nothing else
of the project.
"""

VERSION = "3.250.0"
"""Of the protocol and of the vendor's host that it stands in for."""
