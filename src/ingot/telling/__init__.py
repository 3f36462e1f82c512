"""What happened, as plain words: events → text. Pure."""
