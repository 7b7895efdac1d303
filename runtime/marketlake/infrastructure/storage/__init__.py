"""How Delta tables are written: data files as streams, parts replaced as a whole in one commit."""
