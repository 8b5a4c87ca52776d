"""How often each verdict on a curve comes, by simulation: what the rules of `descent` rest on."""
