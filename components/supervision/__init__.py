"""How services run on one machine: folders, files, accounts, ports, and the supervisor, without Pulumi."""
