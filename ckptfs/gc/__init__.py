"""The collector's place.  This release removes versions (request, keep_last) and frees no pack."""
