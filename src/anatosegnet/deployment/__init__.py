"""A run as a file or folder that others open without this project, or without its training."""
