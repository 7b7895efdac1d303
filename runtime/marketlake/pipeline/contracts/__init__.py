"""What each table of the lake promises: columns, keys and checks."""
