"""The commands of the command line, a file each: parse the arguments, act, return the exit code."""
