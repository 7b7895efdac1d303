"""The archives of venues: plug-ins, discovery, the ledger of what is collected, and the collection itself."""
