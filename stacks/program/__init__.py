"""The Pulumi program of an environment: its components, in the order in which they need each other."""
