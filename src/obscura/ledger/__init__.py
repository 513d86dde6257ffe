"""What a chain must answer, and the built-in one. Knows no peer."""
