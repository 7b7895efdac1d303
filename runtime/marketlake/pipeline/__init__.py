"""From archive files to Delta tables: contracts, ingestion, silver, gaps and quarantine, and SQL over them."""
