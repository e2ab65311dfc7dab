"""Use of a trained network on images of the user."""
