"""Core: values, digests, errors and text helpers for all other packages. Imports neither them nor torch."""
