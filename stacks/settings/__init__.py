"""The typed settings of an environment."""
