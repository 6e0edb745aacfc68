"""What exists and who owns it: an SQLite index that can be rebuilt."""
