"""From archive files to Delta tables: bronze, silver, quarantine, and SQL over them."""
