"""What the pre-training tasks are made of: words, masks, pairs and heads."""
