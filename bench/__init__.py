"""Side-by-side figures: what the project does, against what one would do without it."""
