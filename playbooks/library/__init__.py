"""Ansible modules: each does a step of the node's making that would be dozens of Ansible's own tasks."""
