"""What a preview shows: changes, loss of data, a report."""
