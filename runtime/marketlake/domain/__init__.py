"""The values that the rooms of the runtime hand each other, and the protocol of a venue."""
