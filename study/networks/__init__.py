"""Build networks of three families from timm's classes, and split them into layers."""
