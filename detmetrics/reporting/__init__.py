"""From scores to tables and files."""
