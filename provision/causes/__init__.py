"""Known messages of programs on hosts: their cause, and a hint what to do. Pure."""
