"""S3 → S3: copies with proof, and the ledger of what is in."""
