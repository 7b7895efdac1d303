"""CloudEvents on the event bus: confirmed publishing, consuming with long work, outbox and dead letters.

The submodules are imported directly: a process that only publishes need not load the consumer.
"""
