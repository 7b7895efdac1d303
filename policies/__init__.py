"""Policies: what no environment may do. The rules are plain functions; the pack hands them to Pulumi."""
