"""Ansible playbooks, run by ansible-runner: a Kubernetes node from a bare Debian or Ubuntu."""
