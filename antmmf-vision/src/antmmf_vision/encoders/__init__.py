"""Visual encoders: uint8 frames in, ``Encoded`` out."""
