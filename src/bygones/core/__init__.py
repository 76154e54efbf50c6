"""Small values, digests and names that every room uses. Imports no other room, and no torch."""
