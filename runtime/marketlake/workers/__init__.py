"""The pool of workers: assignments of tasks, liveness, and the worker process."""
