"""What the field has measured already, one benchmark per file."""
