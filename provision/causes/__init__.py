"""Known messages of failed commands: what they mean and what to do. Pure."""
