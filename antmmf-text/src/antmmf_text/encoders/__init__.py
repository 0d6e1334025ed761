"""Text encoders, which also read a text together with a video."""
