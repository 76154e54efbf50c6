"""Memory sources that only an unmodified script has."""
