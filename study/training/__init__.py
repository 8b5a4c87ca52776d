"""One Run in plain PyTorch: knows neither Ray nor files."""
