"""Which files a venue publishes: listing, discovery and the catalogue."""
