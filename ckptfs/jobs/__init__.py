"""Job descriptions (JSDL) and monitoring documents."""
