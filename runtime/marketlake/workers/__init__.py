"""The pool that works on tasks: who holds which one, and who is alive."""
