"""Dynamic Pulumi resources: what a vendor's provider would do for the servers that the platform runs.

Their classes live in importable modules, so Pulumi pickles them by reference: renaming a module or a class
breaks the refresh and the deletion of what was created under the old name.
"""
