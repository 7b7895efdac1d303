"""From bronze to silver, period by period."""
