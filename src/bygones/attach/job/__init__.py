"""A job: a training script in several processes of one machine, its ranks, as torchrun starts them."""
