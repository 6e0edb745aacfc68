"""The mount: thin pyfuse3 handlers over a pure namespace and the table of control files."""
