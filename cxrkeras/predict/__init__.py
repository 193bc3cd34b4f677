"""Answers of a trained network for images: no web."""
