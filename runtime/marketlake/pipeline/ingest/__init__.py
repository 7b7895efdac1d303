"""From landing to bronze: each file's rows, typed."""
