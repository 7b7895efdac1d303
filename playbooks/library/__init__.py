"""Ansible modules: each does a step that would be dozens of Ansible's own tasks."""
