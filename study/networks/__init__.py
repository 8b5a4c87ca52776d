"""The families of networks, each built from timm's own class and taken apart into layers."""
