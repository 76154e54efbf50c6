"""Scripts: a study of an unmodified training script."""
