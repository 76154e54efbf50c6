"""The way in for a training script that must not be edited."""
