"""A page to try a network on: an image in, what is seen and measured in it out."""
