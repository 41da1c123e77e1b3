"""A trained network applied to images: files in, masks out."""
