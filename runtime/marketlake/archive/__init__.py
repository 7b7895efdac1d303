"""What venues publish: venue plug-ins, discovery by listing, and the catalogue of what was seen."""
