"""A newcomer's hour: the commands and blocks of README.md and of the tutorials, as written."""
