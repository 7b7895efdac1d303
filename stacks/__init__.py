"""What an environment consists of: the Pulumi program and its settings."""
