"""What a memory did, seen from its states."""
