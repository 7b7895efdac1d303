"""Driving the `pulumi` command line."""
