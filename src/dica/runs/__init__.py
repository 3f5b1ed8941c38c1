"""What a run leaves: its id, the names of its files, its record, and reading them again."""
