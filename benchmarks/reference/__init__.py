"""The three reference studies: as a user of bygones writes them, and as a loop without it."""
