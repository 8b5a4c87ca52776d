"""What a user types and reads: the verbs, their flags, their texts."""
