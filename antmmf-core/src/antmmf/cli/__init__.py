"""The command line: argv in, exit code out; every command's module is imported when it is used."""
