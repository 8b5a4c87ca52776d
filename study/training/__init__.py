"""Train one Run in plain PyTorch, without Ray and the store."""
