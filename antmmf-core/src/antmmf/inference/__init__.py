"""A trained model in use, and what a frozen encoder saw stored for training."""
