"""The collector's place; this release removes versions on request and by keep_last, and frees no pack."""
