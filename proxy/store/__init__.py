"""What is kept: tables, statements, units of work."""
