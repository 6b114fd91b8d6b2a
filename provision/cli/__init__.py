"""The command line: tasks, their arguments, and what people see."""
